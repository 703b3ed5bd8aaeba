"""Label maps in MATLAB files (version 5), as PASCAL-Context publishes them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from train.data.sources import DataError

_DAMAGE = (MatReadError, ValueError, TypeError, KeyError, IndexError, EOFError, OSError, zlib.error)


def read_mat_labels(path: Path, name: str = "LabelMap") -> NDArray[Any]:
    """The whole-number matrix called `name`.

    Returns:
        (H, W) of a whole-number type.

    Raises:
        DataError: the file is no MATLAB 5 file, is damaged, or has no such matrix.
    """
    with path.open("rb") as file:
        if file.read(128)[126:] not in (b"IM", b"MI"):
            raise DataError(f"{path} is not a MATLAB file of version 5.")
    try:
        found = name in {title for title, _, _ in whosmat(path, appendmat=False)}
        values = loadmat(path, appendmat=False, variable_names=[name])[name] if found else np.zeros(0)
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iuf":
        raise DataError(f"{path} has no matrix called {name}.")
    return np.asarray(values.astype(np.int64) if values.dtype.kind == "f" else values)
