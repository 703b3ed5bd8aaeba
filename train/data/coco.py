"""COCO val2017 with its own truth: panoptic (133 classes) and instances (80 things). For evaluation only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg_demo.errors import quoted
from ovseg_demo.vocabulary import Vocabulary
from train.data.folders import NOTHING, truth_set
from train.data.sources import DataError
from train.data.truth import Segment, TruthPhoto, TruthSet, read_instances

# Where the parts lie below the data folder: as downloaded, or as a small part of it.
_PANOPTIC_PLACES = (
    ("coco/annotations/panoptic_val2017.json", "coco/panoptic_val2017", "coco/val2017"),
    tuple(f"coco_subset/val2017_panoptic/{part}" for part in ("panoptic.json", "panoptic", "images")),
)
_INSTANCE_PLACES = (
    ("coco/annotations/instances_val2017.json", "coco/val2017"),
    ("coco_subset/val2017/instances.json", "coco_subset/val2017/images"),
)


def coco_panoptic(root: Path) -> TruthSet:
    """COCO panoptic val2017, 80 things and 53 kinds of stuff.

    The segment of a crowd counts in the label map, where its class is known, but is no region to be named.

    Raises:
        DataError: a part is missing, or the categories are not COCO's 133.
    """
    file, folder, images = _first_place("COCO panoptic", root, _PANOPTIC_PLACES)
    truth = json.loads(file.read_text("utf-8"))
    categories = sorted(category["id"] for category in truth["categories"])
    index = {number: i for i, number in enumerate(categories)}
    classes = Vocabulary.preset("coco-133").classes
    if len(index) != len(classes):
        raise DataError(f"{file} has {len(index)} categories instead of COCO panoptic's {len(classes)}.")
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    photos = []
    for annotation in truth["annotations"]:
        picture = _Panoptic(folder / annotation["file_name"], annotation["segments_info"], index)
        for path in (picture.path, photo := images / names[annotation["image_id"]]):
            if not path.is_file():
                raise DataError(f"{file} names {quoted(path.name)}, which is missing in {path.parent}.")
        photos.append(TruthPhoto(photo, picture.segments, picture.labels))
    return truth_set("coco-panoptic", classes, tuple(photos))


class _Panoptic:
    """One picture of segment ids (red + 256 green + 65536 blue, 0 = nothing) and what the segments are."""

    def __init__(self, path: Path, infos: list[dict[str, Any]], index: dict[int, int]) -> None:
        self.path = path
        self.infos = infos
        self.index = index

    def ids(self) -> NDArray[np.int32]:
        colours = np.asarray(Image.open(self.path).convert("RGB"), dtype=np.int32)
        return np.asarray(colours @ np.array([1, 256, 65536], dtype=np.int32))

    def segments(self) -> list[Segment]:
        ids = self.ids()
        own = [info for info in self.infos if not info["iscrowd"]]
        found = [Segment(ids == info["id"], self.index[info["category_id"]]) for info in own]
        return [segment for segment in found if segment.mask.any()]

    def labels(self) -> NDArray[np.uint16]:
        ids = self.ids()
        labels = np.full(ids.shape, NOTHING, dtype=np.uint16)
        for info in self.infos:
            labels[ids == info["id"]] = self.index[info["category_id"]]
        return labels


def coco_instances_val(root: Path) -> TruthSet:
    """COCO instances val2017, 80 things; crowds and pixels without an instance are ignored.

    Raises:
        DataError: a part is missing.
    """
    file, images = _first_place("COCO instances", root, _INSTANCE_PLACES)
    return read_instances("coco-instances", [(file, images)])


def _first_place(title: str, root: Path, places: tuple[tuple[str, ...], ...]) -> list[Path]:
    """The first places whose every part is there.

    Raises:
        DataError: there is none; names what the nearest lacks, the downloaded layout if nothing is there.
    """
    lost = [[part for part in parts if not (root / part).exists()] for parts in places]
    nearest = min(range(len(places)), key=lambda i: len(lost[i]) / len(places[i]))
    if missing := lost[nearest]:
        raise DataError(
            f"{title} needs {' and '.join(missing)} in {root}, which is missing there: "
            "give the folder that holds it with --data."
        )
    return [root / part for part in places[nearest]]
