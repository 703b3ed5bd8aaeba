"""MATLAB label maps are read as they were written, and damaged files are told from foreign ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from train.data.folders import plain, read_labels
from train.data.mat_labels import read_mat_labels
from train.data.sources import DataError

KINDS = {"u1": 2, "u2": 4, "f8": 9}
MATRIX, DEFLATED = 14, 15


def element(kind: int, content: bytes, order: str, *, padded: bool = True) -> bytes:
    if 0 < len(content) <= 4 and kind not in (MATRIX, DEFLATED):  # the short form
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    fill = b"\0" * (-len(content) % 8 if padded else 0)
    return struct.pack(f"{order}II", kind, len(content)) + content + fill


def mat_file(
    labels: np.ndarray, *, name: str = "LabelMap", deflated: bool = True, order: str = "<", kind: str = "u2"
) -> bytes:
    """A file as MATLAB 5 documents it: header, then one matrix."""
    matrix = b"".join(
        (
            element(6, struct.pack(f"{order}II", 11, 0), order),
            element(5, struct.pack(f"{order}ii", *labels.shape), order),
            element(1, name.encode(), order),
            element(KINDS[kind], labels.astype(order + kind).tobytes(order="F"), order),
        )
    )
    body = element(MATRIX, matrix, order)
    if deflated:
        body = element(DEFLATED, zlib.compress(body), order, padded=False)
    version = struct.pack(f"{order}H2s", 0x0100, b"IM" if order == "<" else b"MI")
    return b"MATLAB 5.0 MAT-file".ljust(124) + version + body


LABELS = np.arange(35).reshape(5, 7) * 13 % 460


@pytest.mark.parametrize("kind", ["u2", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [True, False])
def test_labels_come_back(tmp_path: Path, deflated: bool, order: str, kind: str) -> None:
    path = tmp_path / "photo.mat"
    path.write_bytes(mat_file(LABELS, deflated=deflated, order=order, kind=kind))
    read = read_mat_labels(path)
    assert read.dtype.kind in "ui"
    np.testing.assert_array_equal(read, LABELS)


def test_a_file_is_told_by_its_ending_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "PHOTO.MAT"
    path.write_bytes(mat_file(LABELS))
    np.testing.assert_array_equal(read_labels(path, plain(460, ignore=65535)), LABELS)


def test_a_map_of_four_bytes_shares_a_word_with_its_tag(tmp_path: Path) -> None:
    path = tmp_path / "photo.mat"
    path.write_bytes(mat_file(np.array([[1, 2], [3, 4]]), kind="u1", name="L"))
    assert read_mat_labels(path, "L").tolist() == [[1, 2], [3, 4]]


def test_other_matrices_before_it_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "photo.mat"
    other = mat_file(np.zeros((2, 9)), name="Other", deflated=False)
    path.write_bytes(other + mat_file(LABELS)[128:])
    np.testing.assert_array_equal(read_mat_labels(path), LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a matrix", "not a MATLAB file"),
        (mat_file(LABELS)[:-20], "damaged"),
        (mat_file(LABELS, deflated=False)[:-20], "damaged"),
        (mat_file(LABELS, name="Other"), "no matrix called LabelMap"),
    ],
    ids=["foreign", "cut deflated", "cut plain", "without labels"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_mat_labels(path)
    assert str(path) in str(error.value)
