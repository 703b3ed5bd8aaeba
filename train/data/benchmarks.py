"""The published benchmarks, read from the folders people have: as downloaded, or as prepared for detectron2.

    BENCHMARKS["ade20k-150"](Path("datasets"))

A folder that is not there is told apart from one that lacks a part, and the sentence says which part.
None of these photos may be trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ovseg_demo.errors import quoted
from ovseg_demo.vocabulary import Vocabulary, VocabularyClass
from train.data.coco import coco_instances_val, coco_panoptic
from train.data.folders import (
    NOTHING,
    Layout,
    ValueMap,
    classes_from_one,
    classes_from_zero,
    read_classes,
    truth_set,
)
from train.data.sources import DataError
from train.data.truth import TruthSet

CLASS_LISTS = Path(__file__).parent / "class_lists"
Classes = tuple[VocabularyClass, ...]


@dataclass(frozen=True)
class Benchmark:
    """A published data set with its protocol."""

    name: str
    title: str
    bases: tuple[str, ...]
    """What its folder below the data folder may be called."""
    layouts: tuple[Layout, ...]
    """Ways it may be laid out, the prepared ones first."""
    classes: Callable[[], Classes] = field(repr=False)
    photos: int
    """How many the published figures are on."""

    def read(self, root: Path) -> TruthSet:
        """Find the benchmark below `root` and pair its photos with their truth.

        Raises:
            DataError: it is not there, or something in it is missing; says exactly what.
        """
        base, layout = self.find(root)
        return truth_set(self.name, self.classes(), layout.read(base))

    def find(self, root: Path) -> tuple[Path, Layout]:
        """Its folder and the first layout whose every part is there.

        Raises:
            DataError: there is none; names what is missing.
        """
        # The benchmark's own folder may be given as well as the one that holds it.
        own = [root] if any(root.resolve().as_posix().endswith(f"/{base}") for base in self.bases) else []
        bases = [*own, *(root / base for base in self.bases if (root / base).is_dir())]
        if not bases:
            raise DataError(
                f"{self.title} needs the folder {' or '.join(self.bases)} in {root}, which is missing there: "
                "give the folder that holds it with --data."
            )
        lacks = [(base, layout, layout.missing(base)) for base in bases for layout in self.layouts]
        # The nearest: one whose truth is there, then one that lacks least.
        base, layout, missing = min(
            lacks, key=lambda lack: (not (lack[0] / lack[1].labels).exists(), len(lack[2]))
        )
        if not missing:
            return base, layout
        # Where there is no truth of any kind, name every kind that would do.
        truths = dict.fromkeys(layout.labels for layout in self.layouts)
        if not any((base / truth).exists() for truth in truths):
            missing = [" or ".join(truths) if part == layout.labels else part for part in missing]
        raise DataError(f"{self.title} in {base} is not complete: {' and '.join(missing)} is missing there.")


def _preset(key: str) -> Callable[[], Classes]:
    return lambda: Vocabulary.preset(key).classes


def _listed(name: str) -> Callable[[], Classes]:
    return partial(read_classes, CLASS_LISTS / f"{name}.txt")


def _ade20k_150() -> Classes:
    """Under the names that papers score them by; the further words of each are those of the demo's preset."""
    published, own = read_classes(CLASS_LISTS / "ade20k-150.txt"), Vocabulary.preset("ade20k-150").classes
    return tuple(
        VocabularyClass(item.name, tuple(dict.fromkeys((item.name, *more.synonyms))))
        for item, more in zip(published, own, strict=True)
    )


# --- values of label files -------------------------------------------------------------------------------

# Ids of COCO-Stuff's files that belong to none of the 171: COCO took them out of its final lists.
_STUFF_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
# The evaluated 19 of Cityscapes' ids, in the order of the train ids.
_CITY_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def stuff_values() -> dict[int, int]:
    """COCO-Stuff's own files: ids from 0 to 181 with gaps, 255 = nothing."""
    ids = [number for number in range(182) if number not in _STUFF_GAPS]
    return dict.fromkeys((*_STUFF_GAPS, 255), NOTHING) | {number: i for i, number in enumerate(ids)}


def cityscapes_values() -> dict[int, int]:
    """Cityscapes' own files: ids from 0 to 33 (255 = a licence plate), of which 19 are evaluated."""
    return dict.fromkeys((*range(34), 255), NOTHING) | {number: i for i, number in enumerate(_CITY_IDS)}


def context_values(base: Path, classes: Callable[[], Classes]) -> dict[int, int]:
    """PASCAL-Context's own files: ids as its `labels.txt` has them ("12: bambooweaving"), 0 = nothing.

    Raises:
        DataError: a class is missing in that list.
    """
    file = base / "labels.txt"
    rows = (line.split(":", 1) for line in file.read_text("utf-8").splitlines() if ":" in line)
    ids = {name.strip(): int(number) for number, name in rows}
    values = dict.fromkeys((0, *ids.values()), NOTHING)
    for i, item in enumerate(classes()):
        name = item.name.replace(" ", "")  # the data set runs its names together
        if name not in ids:
            raise DataError(f"{file} has no line for {quoted(name)}; it must list all 459 classes.")
        values[ids[name]] = i
    return values


# --- the table -------------------------------------------------------------------------------------------

_CONTEXT_LISTS = ("pascalcontext_val.txt", "ImageSets/SegmentationContext/val.txt", "ImageSets/Main/val.txt")
_VOC_LIST = ("ImageSets/Segmentation/val.txt",)


def _context(
    name: str, title: str, classes: Callable[[], Classes], values: ValueMap, *more: Layout
) -> Benchmark:
    """Both cuts of PASCAL-Context lie in the same folders."""
    count = name.removeprefix("context-")
    prepared = f"annotations_detectron2/pc{count}_val"
    own = partial(context_values, classes=classes)
    layouts = (
        *(Layout(images, prepared, values) for images in ("JPEGImages", "images_detectron2/val", "images")),
        Layout("val/image", "val/label", values),
        *more,
        Layout("JPEGImages", "trainval", own, lists=_CONTEXT_LISTS, needs=("labels.txt",)),
    )
    bases = ("VOCdevkit/VOC2010", "VOC2010", "pcontext" if count == "59" else "pcontext_full")
    return Benchmark(name, title, bases, layouts, classes, photos=5105)


BENCHMARK_TABLE = (
    Benchmark(
        "ade20k-150",
        "ADE20K-150",
        ("ADEChallengeData2016",),
        (
            Layout("images/validation", "annotations_detectron2/validation", classes_from_zero(150)),
            Layout("images/validation", "annotations/validation", classes_from_one(150)),
        ),
        _ade20k_150,
        photos=2000,
    ),
    Benchmark(
        "ade20k-847",
        "ADE20K-847",
        ("ADE20K_2021_17_01",),
        tuple(
            Layout(images, "annotations_detectron2/validation", classes_from_zero(847, NOTHING))
            for images in ("images_detectron2/validation", "images/ADE/validation", "images/validation")
        ),
        _listed("ade20k-847"),
        photos=2000,
    ),
    _context(
        "context-59",
        "Pascal Context-59",
        _preset("context-59"),
        classes_from_zero(59),
        Layout("JPEGImages", "SegmentationClassContext", classes_from_one(59), lists=_CONTEXT_LISTS[1:2]),
    ),
    _context("context-459", "Pascal Context-459", _listed("context-459"), classes_from_zero(459, NOTHING)),
    Benchmark(
        "voc-20",
        "Pascal VOC-20",
        ("VOCdevkit/VOC2012", "VOC2012"),
        (
            Layout("images_detectron2/val", "annotations_detectron2/val", classes_from_zero(20)),
            Layout("JPEGImages", "annotations_detectron2/val", classes_from_zero(20)),
            Layout("JPEGImages", "SegmentationClass", classes_from_one(20), lists=_VOC_LIST),
            Layout("JPEGImages", "SegmentationClassAug", classes_from_one(20), lists=_VOC_LIST),
        ),
        _preset("voc-20"),
        photos=1449,
    ),
    Benchmark(
        "coco-stuff-171",
        "COCO-Stuff-171",
        ("coco", "coco-stuff", "coco_stuff164k"),
        (
            Layout("val2017", "stuffthingmaps_detectron2/val2017", classes_from_zero(171)),
            Layout("images/val2017", "annotations_detectron2/val2017", classes_from_zero(171)),
            Layout(
                "images/val2017", "annotations/val2017", classes_from_zero(171), label_end="_labelTrainIds"
            ),
            Layout("val2017", "stuffthingmaps/val2017", stuff_values()),
            Layout("images/val2017", "annotations/val2017", stuff_values()),
        ),
        _listed("coco-stuff-171"),
        photos=5000,
    ),
    Benchmark(
        "cityscapes-19",
        "Cityscapes-19",
        ("cityscapes",),
        tuple(
            Layout("leftImg8bit/val", "gtFine/val", values, label_end=end, image_end="_leftImg8bit")
            for end, values in (
                ("_gtFine_labelIds", cityscapes_values()),
                ("_gtFine_labelTrainIds", classes_from_zero(19)),
            )
        ),
        _preset("cityscapes-19"),
        photos=500,
    ),
)

PUBLISHED_PHOTOS = {benchmark.name: benchmark.photos for benchmark in BENCHMARK_TABLE}

BENCHMARKS: dict[str, Callable[[Path], TruthSet]] = {
    **{benchmark.name: benchmark.read for benchmark in BENCHMARK_TABLE},
    "coco-panoptic": coco_panoptic,
    "coco-instances": coco_instances_val,
}
"""Readers by name; each takes the folder that holds the data folders."""
