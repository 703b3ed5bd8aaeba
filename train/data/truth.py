"""Photos with true masks, each data set one reader. Which may be trained on is said at each reader."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg_demo.errors import quoted
from ovseg_demo.imaging import load_image
from train.data.sources import DataError

IGNORE = 255
"""Value of a label map where nothing is known; classes count from 0."""

Labels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Segment:
    """One true segment: (H, W) bool mask and its class, counted from 0."""

    mask: NDArray[np.bool_]
    class_index: int


@dataclass(frozen=True)
class TruthPhoto:
    """One photo with truth."""

    path: Path
    read_segments: Callable[[], list[Segment]]
    """Segments that are not ignored: instances, or one per class where truth is a label map."""
    read_labels: Callable[[], Labels]
    """(H, W) class per pixel; the set says which value is to be ignored."""
    uncertain: frozenset[int] = frozenset()
    """Classes of which the truth does not say whether the photo shows them (crowds only)."""

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return load_image(self.path)


@dataclass(frozen=True)
class TruthSet:
    """A data set with truth."""

    name: str
    classes: tuple[str, ...]
    photos: tuple[TruthPhoto, ...]
    ignore: int = IGNORE
    """Value of the label maps where nothing is known."""
    synonyms: tuple[tuple[str, ...], ...] = ()
    """All words of each class, the name first; empty where there are only the names."""


def existing(path: Path) -> Path:
    """The path, if it exists.

    Raises:
        DataError: it does not.
    """
    if not path.exists():
        raise DataError(f"{path} is missing: give the folder that holds it with --data.")
    return path


def msrc21(root: Path) -> TruthSet:
    """MSRC-21 with dense labels. Evaluation only: never trained or tuned on."""
    folder = existing(root / "msrc21")
    photos = []
    for path in sorted((folder / "images").glob("*.jpg")):
        labels = partial(read_label_map, existing(folder / "labels" / f"{path.stem}.png"))
        photos.append(TruthPhoto(path, partial(segments_of_labels, labels), labels))
    return TruthSet("msrc21", tuple((folder / "classes.txt").read_text().split("\n")[:21]), tuple(photos))


def read_label_map(path: Path) -> NDArray[np.uint8]:
    """A palette or greyscale PNG whose values are class indices."""
    return np.asarray(Image.open(path), dtype=np.uint8)


def segments_of_labels(read: Callable[[], Labels], ignore: int = IGNORE) -> list[Segment]:
    """One segment per class of a label map."""
    labels = read()
    return [Segment(labels == index, int(index)) for index in np.unique(labels) if index != ignore]


def coco_instances(root: Path, folders: Sequence[str], name: str) -> TruthSet:
    """COCO instances, the 80 things; crowds are ignored, pixels without an instance are unlabelled."""
    places = [existing(root / "coco_subset" / part) for part in folders]
    return read_instances(name, [(folder / "instances.json", folder / "images") for folder in places])


def read_instances(name: str, places: Sequence[tuple[Path, Path]]) -> TruthSet:
    """Instances in COCO's format, from pairs of a JSON file and the folder of its photos."""
    classes: tuple[str, ...] = ()
    photos: list[TruthPhoto] = []
    for file, images in places:
        truth = json.loads(file.read_text("utf-8"))
        categories = sorted(truth["categories"], key=lambda c: c["id"])
        classes = tuple(c["name"] for c in categories)
        index = {c["id"]: i for i, c in enumerate(categories)}
        of_image = defaultdict(list)
        for annotation in truth["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        for image in truth["images"]:
            size, own = (image["height"], image["width"]), of_image[image["id"]]
            segments = partial(_coco_segments, own, size, index)
            crowds, things = ({index[a["category_id"]] for a in own if a["iscrowd"] == c} for c in (1, 0))
            photos.append(
                TruthPhoto(
                    images / image["file_name"],
                    segments,
                    partial(_paint, segments, size),
                    uncertain=frozenset(crowds - things),
                )
            )
    return TruthSet(name, classes, tuple(photos))


def _coco_segments(
    annotations: list[dict[str, Any]], size: tuple[int, int], index: dict[int, int]
) -> list[Segment]:
    segments = []
    for annotation in annotations:
        if annotation["iscrowd"]:
            continue
        mask = coco_mask.decode(_run_lengths(annotation["segmentation"], size)).astype(bool)
        if mask.any():
            segments.append(Segment(mask, index[annotation["category_id"]]))
    return segments


def _run_lengths(shape: Any, size: tuple[int, int]) -> Any:
    """COCO writes a mask as polygons, as a list of run lengths, or as a string of them."""
    if isinstance(shape, dict) and isinstance(shape["counts"], str):
        return shape
    parts = coco_mask.frPyObjects(shape, *size)
    return coco_mask.merge(parts) if isinstance(parts, list) else parts


def _paint(read: Callable[[], list[Segment]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Small instances over large ones; everything else is ignored."""
    labels = np.full(size, IGNORE, dtype=np.uint8)
    for segment in sorted(read(), key=lambda s: -int(s.mask.sum())):
        labels[segment.mask] = segment.class_index
    return labels


def read_one_of(sets: Mapping[str, Callable[[Path], TruthSet]], name: str, root: Path) -> TruthSet:
    """The data set of this name, below the folder that holds the data folders.

    Raises:
        DataError: there is none of that name, or a part of it is missing.
    """
    if name not in sets:
        raise DataError(f"There is no data set {quoted(name)}; choose one of {', '.join(sets)}.")
    return sets[name](root)


COCO_TRAIN = ("train2017", "train2017_coco128")
TRUTH_SETS: dict[str, Callable[[Path], TruthSet]] = {
    "msrc21": msrc21,
    "coco-val": partial(coco_instances, folders=("val2017",), name="coco-val"),
    # Calibration, ablations and the arms with true masks; may be trained on.
    "coco-train": partial(coco_instances, folders=COCO_TRAIN, name="coco-train"),
    "coco-train-official": partial(coco_instances, folders=("train2017",), name="coco-train-official"),
}
