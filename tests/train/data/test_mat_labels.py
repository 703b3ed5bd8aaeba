"""MATLAB label maps are read as they were written, and damaged files are told from foreign ones."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from train.data.folders import classes_from_zero, read_labels
from train.data.mat_labels import read_mat_labels
from train.data.sources import DataError

LABELS = np.arange(35).reshape(5, 7) * 13 % 460


def mat_file(labels: np.ndarray = LABELS, *, name: str = "LabelMap", deflated: bool = True) -> bytes:
    """A file with a small matrix of another name first, as MATLAB's own may have."""
    buffer = io.BytesIO()
    savemat(buffer, {"Other": np.zeros((2, 9)), name: labels}, do_compression=deflated)
    return buffer.getvalue()


def big_endian(labels: np.ndarray, name: str = "LabelMap") -> bytes:
    """The same, written by hand as a machine of the other byte order does, which SciPy never writes."""
    elements = (
        (6, struct.pack(">II", 11, 0)),
        (5, struct.pack(">ii", *labels.shape)),
        (1, name.encode()),
        (4, labels.astype(">u2").tobytes(order="F")),
    )
    matrix = b"".join(
        struct.pack(">II", kind, len(part)) + part + b"\0" * (-len(part) % 8) for kind, part in elements
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H2s", 0x0100, b"MI")
    return header + struct.pack(">II", 14, len(matrix)) + matrix


@pytest.mark.parametrize("kind", ["u1", "u2", "f8"])
@pytest.mark.parametrize("deflated", [True, False])
def test_labels_come_back(tmp_path: Path, deflated: bool, kind: str) -> None:
    path = tmp_path / "photo.mat"
    labels = (LABELS % 200).astype(kind)
    path.write_bytes(mat_file(labels, deflated=deflated))
    read = read_mat_labels(path)
    assert read.dtype.kind in "ui"
    np.testing.assert_array_equal(read, labels)


def test_labels_of_the_other_byte_order_come_back(tmp_path: Path) -> None:
    path = tmp_path / "photo.mat"
    path.write_bytes(big_endian(LABELS))
    np.testing.assert_array_equal(read_mat_labels(path), LABELS)


def test_a_file_is_told_by_its_ending_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "PHOTO.MAT"
    path.write_bytes(mat_file())
    np.testing.assert_array_equal(read_labels(path, classes_from_zero(460, ignore=65535)), LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a matrix", "not a MATLAB file"),
        (mat_file()[:-20], "damaged"),
        (mat_file(deflated=False)[:-20], "damaged"),
        (mat_file(name="Labels"), "no matrix called LabelMap"),
        (mat_file(np.array([["a word"]])), "no matrix called LabelMap"),
    ],
    ids=["foreign", "cut deflated", "cut plain", "without labels", "a word"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_mat_labels(path)
    assert str(path) in str(error.value)
