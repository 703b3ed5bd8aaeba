"""Photos and label maps that lie in two folders: how their files pair up and what their values mean.

Whatever the files hold, a label map read here is uint16 with classes counted from 0 and 65535 where nothing
is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ovseg_demo.errors import quoted
from ovseg_demo.vocabulary import Vocabulary, VocabularyClass, fold
from train.data.mat_labels import read_mat_labels
from train.data.sources import DataError
from train.data.truth import TruthPhoto, TruthSet, segments_of_labels

NOTHING = 65535
"""Value of a label map where nothing is known."""

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".mat")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

MAX_NAME_LENGTH = 1000
"""Characters in one name of a class list; ADE20K strings synonyms together."""

ValueMap = Mapping[int, int]
"""Value in the file to class, or to `NOTHING`; a value that is not in it is a mistake."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set's folders are laid out; every path is relative to its base folder."""

    images: str
    labels: str
    values: ValueMap | Callable[[Path], ValueMap]
    """Value in the label files to class; a function of the base folder where a file there says it."""
    lists: tuple[str, ...] = ()
    """Files with one photo a line, of which the first that is there counts; none = every label file."""
    label_end: str = ""
    """What a label file's stem has behind the photo's."""
    image_end: str = ""
    """What a photo's stem has in that place."""
    needs: tuple[str, ...] = ()
    """Further files that must be there."""
    nested: bool = False
    """Whether subfolders belong to a photo's name; otherwise its stem alone names it, wherever it lies."""

    def missing(self, base: Path) -> list[str]:
        """The parts that are not there."""
        parts = [part for part in (self.images, self.labels, *self.needs) if not (base / part).exists()]
        if self.lists and not any((base / name).is_file() for name in self.lists):
            parts.append(self.lists[0])
        if self.label_end and self.labels not in parts:
            files = f"*{self.label_end}.png"
            if next((base / self.labels).rglob(files), None) is None:
                parts.append(f"{self.labels}/{files}")
        return parts

    def read(self, base: Path) -> tuple[TruthPhoto, ...]:
        """Every evaluation photo with its truth, in the order of the list or of their names.

        Raises:
            DataError: there is no label file, or a photo or a label file is missing.
        """
        values = self.values(base) if callable(self.values) else self.values
        photos = []
        for labels, image in self._pairs(base):
            read = partial(read_labels, labels, values)
            photos.append(TruthPhoto(image, partial(segments_of_labels, read, NOTHING), read))
        return tuple(photos)

    def _pairs(self, base: Path) -> list[tuple[Path, Path]]:
        labels = self._by_name(base / self.labels, LABEL_SUFFIXES, self.label_end)
        images = self._by_name(base / self.images, IMAGE_SUFFIXES, self.image_end)
        names = sorted(labels)
        if self.lists:
            listed = next(base / name for name in self.lists if (base / name).is_file())
            names = [line.split()[0] for line in listed.read_text("utf-8").splitlines() if line.strip()]
        if not names:
            raise DataError(f"There is no label file ({', '.join(LABEL_SUFFIXES)}) in {base / self.labels}.")
        for kind, folder, found in (
            ("label map", self.labels, labels),
            ("photo", self.images, images),
        ):
            lost = [name for name in names if name not in found]
            if lost:
                more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
                raise DataError(f"{base / folder} has no {kind} for {quoted(lost[0])}{more}.")
        return [(labels[name], images[name]) for name in names]

    def _by_name(self, folder: Path, suffixes: tuple[str, ...], end: str) -> dict[str, Path]:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
        files = [path for path in files if path.stem.endswith(end)]
        if self.nested:
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
        return {path.stem.removesuffix(end): path for path in files}


def read_labels(path: Path, values: ValueMap) -> NDArray[np.uint16]:
    """A label file as classes.

    Args:
        path: a palette or grey picture of 8 or 16 bits, or a MATLAB file with a "LabelMap".
        values: value in the file to class.

    Returns:
        (H, W) uint16, 65535 = ignore.

    Raises:
        DataError: the file is no label map, or holds a value that means nothing.
    """
    raw = read_mat_labels(path) if path.suffix.lower() == ".mat" else _read_picture(path)
    used = np.unique(raw)
    unknown = [int(value) for value in used if int(value) not in values]
    if unknown:
        raise DataError(
            f"{path} holds the value {unknown[0]}, which is neither a class nor the ignored value: "
            "these are not the labels of this data set and class list."
        )
    table = np.full(int(used[-1]) + 1, NOTHING, dtype=np.uint16)
    table[used] = [values[int(value)] for value in used]
    return np.asarray(table[raw])


def _read_picture(path: Path) -> NDArray[Any]:
    try:
        raw = np.asarray(Image.open(path))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"The label map {path} cannot be read: {error}.") from None
    if raw.ndim != 2 or raw.dtype.kind not in "ui" or raw.size == 0 or raw.min() < 0:
        raise DataError(f"{path} is a colour picture, not a label map: one whole number per pixel is needed.")
    return raw


def classes_from_zero(classes: int, ignore: int = 255) -> dict[int, int]:
    """Values of files that hold the classes themselves, from 0 on."""
    return {i: i for i in range(classes)} | {ignore: NOTHING}


def classes_from_one(classes: int) -> dict[int, int]:
    """Values of files that count classes from 1, with 0 (and 255) for everything else."""
    return {0: NOTHING, 255: NOTHING, **{i + 1: i for i in range(classes)}}


def read_classes(path: Path) -> tuple[VocabularyClass, ...]:
    """A class list: one class a line, synonyms after bars, lines that begin with # left out.

    Raises:
        DataError: the file is missing or empty, or two classes have the same word.
    """
    if not path.is_file():
        raise DataError(f"The class list {path} is missing.")
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"The class list {path} is empty; it needs one class a line.")
    known: set[str] = set()
    classes = []
    for line in lines:
        (item,) = Vocabulary.of([line], max_name_length=MAX_NAME_LENGTH).classes
        words = {fold(word) for word in item.synonyms}
        if known & words:
            raise DataError(f"The class list {path} has {quoted(line)} twice: give it words of its own.")
        known |= words
        classes.append(item)
    return tuple(classes)


def read_folders(images: Path, labels: Path, classes: Path, ignore: int) -> TruthSet:
    """Any data set: photos and label maps of the same names in two folders, and a class list.

    Args:
        images: folder with the photos, subfolders included.
        labels: folder with the label maps; a pixel is the number of its class, the first being 0.
        classes: one class a line, synonyms after bars.
        ignore: value of pixels that do not count.

    Raises:
        DataError: something is missing.
    """
    for option, folder in (("--images", images), ("--labels", labels)):
        if not folder.is_dir():
            raise DataError(f"The folder {folder}, given as {option}, is missing.")
    listed = read_classes(classes)
    where = Layout(
        str(images.resolve()), str(labels.resolve()), classes_from_zero(len(listed), ignore), nested=True
    )
    return truth_set(images.resolve().name, listed, where.read(Path()))


def truth_set(name: str, classes: tuple[VocabularyClass, ...], photos: tuple[TruthPhoto, ...]) -> TruthSet:
    """A data set whose label maps were read by this module."""
    return TruthSet(
        name,
        tuple(item.name for item in classes),
        photos,
        ignore=NOTHING,
        synonyms=tuple(item.synonyms for item in classes),
    )
