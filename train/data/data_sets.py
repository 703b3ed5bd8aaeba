"""Every data set with truth, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from train.data.benchmarks import BENCHMARKS
from train.data.truth import TRUTH_SETS, TruthSet, read_one_of

DATA_SETS: dict[str, Callable[[Path], TruthSet]] = {**TRUTH_SETS, **BENCHMARKS}


def read_data_set(name: str, root: Path) -> TruthSet:
    """The data set of this name, below the folder that holds the data folders.

    Raises:
        DataError: there is none of that name, or a part of it is missing.
    """
    return read_one_of(DATA_SETS, name, root)
