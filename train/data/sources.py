"""The photos that may be trained on, each source one reader.

Evaluation data has readers of its own and never passes through here.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.errors import OvsegError
from ovseg_demo.imaging import load_image


class DataError(OvsegError):
    """A data folder is missing or not laid out as its reader expects."""


@dataclass(frozen=True)
class Photo:
    """One training photo and the words that belong to it."""

    path: Path
    source: str
    captions: tuple[str, ...] = ()
    """Sentences written by people."""
    names: tuple[str, ...] = ()
    """Class or scene names and tags."""
    aspect: float | None = None
    """Width / height where the file is squashed and must be stretched back."""

    def read(self) -> NDArray[np.uint8]:
        """Load the photo, (H, W, 3) uint8 RGB, a squashed one with its own aspect again."""
        image = load_image(self.path)
        if self.aspect is None:
            return image
        side = max(image.shape[:2])
        size = (side, round(side / self.aspect)) if self.aspect > 1 else (round(side * self.aspect), side)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def photo_at(root: Path, name: str) -> Photo:
    """A photo by its path below the data folder, without words.

    Raises:
        DataError: it is missing.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path} is missing: restore the photo, or give its data folder with --data.")
    if path.parts[-3:-1] != ("flickr8k", "images"):
        return Photo(path, Path(name).parts[0])
    return Photo(path, "flickr8k", aspect=_flickr8k_aspects(root / "flickr8k")[path.name])


def path_below(path: Path, root: Path) -> str:
    """A photo's path below the data folder; empty if it lies elsewhere."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return ""


@lru_cache(maxsize=4)
def _flickr8k_aspects(folder: Path) -> dict[str, float]:
    """Width / height of each photo before it was squashed."""
    return {row["image"]: float(row["aspect"]) for row in read_rows(folder / "aspect.csv")}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        DataError: the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: give the folder that holds it with --data.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _captioned(folder: Path, splits: tuple[str, ...]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(folder / "captions.csv"):
        if row["split"] in splits:
            captions[row["image"]].append(row["caption"].strip())
    return captions


def flickr8k(root: Path, splits: tuple[str, ...] = ("train", "val")) -> list[Photo]:
    """Flickr8k: five captions a photo; the photos are stored squashed to a square."""
    folder = root / "flickr8k"
    aspects = _flickr8k_aspects(folder)
    return [
        Photo(folder / "images" / image, "flickr8k", tuple(captions), aspect=aspects[image])
        for image, captions in _captioned(folder, splits).items()
    ]


def coco_captions(root: Path) -> list[Photo]:
    """The train2017 rows of the COCO captions; its val rows are evaluation data."""
    folder = root / "coco_captions"
    return [
        Photo(folder / "images" / image, "coco_captions", tuple(captions))
        for image, captions in _captioned(folder, ("train",)).items()
    ]


def food_photos(root: Path) -> list[Photo]:
    """Food photos with captions and tags."""
    folder = root / "food_photos"
    tags: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(folder / "labels.csv"):
        tags[row["image"]].append(row["name"])
    return [
        Photo(folder / "images" / image, "food_photos", tuple(captions), tuple(tags[image]))
        for image, captions in _captioned(folder, ("train",)).items()
    ]


def imagenet(root: Path) -> list[Photo]:
    """One photo of each ImageNet class, in the order of the classifier's outputs."""
    folder = root / "imagenet_one_per_class"
    rows = sorted(read_rows(folder / "classes.csv"), key=lambda row: row["wnid"])
    return [Photo(folder / "images" / row["file"], "imagenet", names=(row["class_name"],)) for row in rows]


def _scenes(root: Path, folder_name: str) -> list[Photo]:
    folder = root / folder_name
    return [
        Photo(folder / "images" / row["image"], folder_name, names=(row["name"],))
        for row in read_rows(folder / "labels.csv")
    ]


def sun_scenes(root: Path) -> list[Photo]:
    """Scene photos with one name each."""
    return _scenes(root, "sun_scenes")


def intel_scenes(root: Path) -> list[Photo]:
    """Scene photos with one name each."""
    return _scenes(root, "intel_scenes")


def coco_unlabelled(root: Path) -> list[Photo]:
    """The photos of the COCO train2017 subsets, without their truth."""
    folders = [root / "coco_subset" / name / "images" for name in ("train2017", "train2017_coco128")]
    return [Photo(path, "coco_unlabelled") for folder in folders for path in sorted(folder.glob("*.jpg"))]


SOURCES: dict[str, Callable[[Path], list[Photo]]] = {
    "flickr8k": flickr8k,
    "coco_captions": coco_captions,
    "food_photos": food_photos,
    "imagenet": imagenet,
    "sun_scenes": sun_scenes,
    "intel_scenes": intel_scenes,
    "coco_unlabelled": coco_unlabelled,
}


def read_sources(root: Path, names: tuple[str, ...] = tuple(SOURCES)) -> list[Photo]:
    """All photos of the named sources, in a fixed order."""
    return [photo for name in names for photo in SOURCES[name](root)]
