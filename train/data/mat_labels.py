"""Label maps in MATLAB files (version 5), as PASCAL-Context publishes them, read without SciPy.

Such a file is a header of 128 bytes and a row of elements: a type, a length, that many bytes. A matrix is an
element whose bytes are elements again (flags, dimensions, name, numbers); MATLAB usually deflates it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.sources import DataError

_MATRIX, _DEFLATED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 9: "f8", 12: "i8", 13: "u8"}


def read_mat_labels(path: Path, name: str = "LabelMap") -> NDArray[Any]:
    """The whole-number matrix called `name`.

    Returns:
        (H, W) of a whole-number type.

    Raises:
        DataError: the file is no MATLAB 5 file, is damaged, or has no such matrix.
    """
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise DataError(f"{path} is not a MATLAB file of version 5.")
    try:
        for kind, content in _elements(data[128:], order):
            if kind == _DEFLATED:
                kind, content = next(_elements(zlib.decompress(content), order))
            if kind == _MATRIX:
                title, values = _matrix(content, order)
                if title == name and values.ndim == 2 and values.size:
                    return values.astype(np.int64) if values.dtype.kind == "f" else values
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    raise DataError(f"{path} has no matrix called {name}.")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; up to four bytes may share a word with their tag."""
    at = 0
    while at + 8 <= len(data):
        (tag,) = struct.unpack_from(f"{order}I", data, at)
        if tag >> 16:
            yield tag & 0xFFFF, data[at + 4 : at + 4 + (tag >> 16)]
            at += 8
            continue
        (size,) = struct.unpack_from(f"{order}I", data, at + 4)
        if at + 8 + size > len(data):
            raise ValueError("it ends too early")
        yield tag, data[at + 8 : at + 8 + size]
        at += 8 + size
        if tag != _DEFLATED:
            at += -size % 8


def _matrix(data: bytes, order: str) -> tuple[str, NDArray[Any]]:
    """Name and numbers; a matrix that is not one of real numbers comes out empty."""
    (_, _), (_, dimensions), (_, title), *numbers = _elements(data, order)
    name = title.decode("ascii", "replace")
    if not numbers or numbers[0][0] not in _NUMBERS:
        return name, np.zeros(0)
    kind, content = numbers[0]
    shape = tuple(np.frombuffer(dimensions, f"{order}i4"))
    values = np.frombuffer(content, order + _NUMBERS[kind]).reshape(shape, order="F")
    return name, values.astype(values.dtype.newbyteorder("="))
