"""What people call the 1,000 ImageNet classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from train.data.sources import DataError

EVERYDAY_NAMES = Path(__file__).parent / "class_lists" / "imagenet-everyday.txt"


def everyday_names(classes: Sequence[str]) -> list[list[str]]:
    """Everyday name of each class of the classifier: "Afghan hound" is a dog, "beach wagon" a car.

    Raises:
        DataError: the list is not that of these classes.
    """
    lines = [line for line in EVERYDAY_NAMES.read_text("utf-8").splitlines() if not line.startswith("#")]
    parts = [[word.strip() for word in line.split("|")] for line in lines]
    for number, (name, words) in enumerate(zip(classes, parts, strict=False)):
        if name != words[0]:
            raise DataError(f"Line {number + 1} of {EVERYDAY_NAMES} is {words[0]!r} instead of {name!r}.")
    if len(parts) != len(classes):
        raise DataError(f"{EVERYDAY_NAMES.name} has {len(parts)} classes instead of {len(classes)}.")
    return [words[1:] for words in parts]
