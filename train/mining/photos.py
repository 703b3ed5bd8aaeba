"""The photos that are mined, their order and their captions."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from train.data.everyday_names import everyday_names
from train.data.sources import (
    DataError,
    Photo,
    coco_captions,
    flickr8k,
    food_photos,
    imagenet,
    intel_scenes,
    sun_scenes,
)


def everyday_imagenet(root: Path) -> list[Photo]:
    """ImageNet's photos, each with its class and its everyday name: "Afghan hound" is also a dog."""
    photos = imagenet(root)
    everyday = everyday_names([photo.names[0] for photo in photos])
    return [
        replace(photo, names=tuple(dict.fromkeys([*photo.names, *words])))
        for photo, words in zip(photos, everyday, strict=True)
    ]


WORDED: dict[str, Callable[[Path], list[Photo]]] = {
    "coco_captions": coco_captions,
    # Its val photos are not mined: settings are chosen on them, and vanilla learned from their captions.
    "flickr8k": partial(flickr8k, splits=("train",)),
    "food_photos": food_photos,
    "imagenet": everyday_imagenet,
    "sun_scenes": sun_scenes,
    "intel_scenes": intel_scenes,
}
"""The sources of `train.data.sources` that have captions or labels and may be mined."""


def photo_id(photo: Photo) -> str:
    """Unique among the mined photos: source and file name without ending."""
    return f"{photo.source}/{photo.path.stem}"


def photos_digest(photos: Sequence[Photo]) -> str:
    """A digest of the photos and their order."""
    return hashlib.sha256("\n".join(map(photo_id, photos)).encode()).hexdigest()[:16]


def source_photos(data: Path, names: Sequence[str], seed: int) -> list[Photo]:
    """The photos of the named sources, one source after the other, each in random order.

    The first n photos of a source are a random sample of it, for any n.

    Raises:
        DataError: a source is unknown, or its folder is missing.
    """
    photos: list[Photo] = []
    for name in names:
        if name not in WORDED:
            known = ", ".join(WORDED)
            raise DataError(f"There are no photos with words called {name!r}; choose among {known}.")
        photos += _shuffled(WORDED[name](data), seed)
    return photos


def file_photos(captions: Path, images: Path, seed: int) -> list[Photo]:
    """The photos of a captions file: COCO's JSON, or a CSV with the columns image and caption.

    Raises:
        DataError: the file is missing or malformed (says where), or two of its images share a name.
    """
    if not captions.is_file():
        raise DataError(f"{captions} is missing: give a captions file with --captions.")
    if not images.is_dir():
        raise DataError(f"{images} is not a folder: give the folder of the photos with --images.")
    try:
        text = captions.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{captions} is not UTF-8 text ({error}); save it as UTF-8.") from None
    rows = _coco_rows(text, captions) if captions.suffix == ".json" else _csv_rows(text, captions)
    of_image: dict[str, list[str]] = defaultdict(list)
    for image, caption in rows:
        of_image[image].append(caption.strip())
    photos = [
        Photo(images / image, captions.stem, tuple(c for c in said if c)) for image, said in of_image.items()
    ]
    stems: dict[str, str] = {}
    for photo in photos:
        other = stems.setdefault(photo.path.stem, photo.path.name)
        if other != photo.path.name:
            raise DataError(
                f"{captions} names both {other} and {photo.path.name}; give the photos different names."
            )
    if not photos:
        raise DataError(f"{captions} has no caption; give a file that has some.")
    return _shuffled(photos, seed)


def _shuffled(photos: Iterable[Photo], seed: int) -> list[Photo]:
    listed = sorted(photos, key=photo_id)
    random.Random(seed).shuffle(listed)
    return listed


def _coco_rows(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); give COCO's captions file or a CSV.") from None
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        annotations = list(content["annotations"])
    except (KeyError, TypeError):
        raise DataError(
            f"{path} is not in COCO's form: it needs the lists images (id, file_name) and annotations."
        ) from None
    rows = []
    for number, annotation in enumerate(annotations, 1):
        try:
            image, caption = annotation["image_id"], annotation["caption"]
            rows.append((names[image], caption.strip()))
        except (KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path}: annotation {number} has no caption, or an image_id that is not among the images."
            ) from None
    return rows


def _csv_rows(text: str, path: Path) -> list[tuple[str, str]]:
    reader = csv.DictReader(text.splitlines())
    if not {"image", "caption"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path} needs the columns image and caption; its first line is {reader.fieldnames}.")
    rows = []
    for row in reader:
        if not row["image"] or row["caption"] is None:
            raise DataError(f"{path}: line {reader.line_num} has no image or no caption.")
        rows.append((row["image"], row["caption"]))
    return rows
