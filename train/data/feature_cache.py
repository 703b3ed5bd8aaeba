"""Cache on disk for features of frozen networks, in pieces.

A killed run loses one piece; pieces that exist are not computed again. A folder of pieces is named by a
digest of all that its content depends on, so runs of other data or weights never read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from train.core.files import write_tensors
from train.data.sources import DataError

ROWS_PER_PIECE = 256
Tensors = dict[str, Tensor]


def cached_pieces(
    work: Path,
    what: str,
    key: str,
    count: int,
    compute: Callable[[range], Mapping[str, Tensor]],
    *,
    at_once: int = ROWS_PER_PIECE,
) -> Iterator[Tensors]:
    """The tensors of `compute` for rows 0 to `count`, piece by piece.

    Args:
        work: folder that the pieces are kept in.
        what: a word for the content, for the folder's name and the progress bar.
        key: everything that the content depends on.
        count: number of rows.
        compute: makes the tensors of some rows; those of consecutive rows are concatenated.
        at_once: rows for which it is called at a time, at most.

    Raises:
        DataError: a piece is damaged.
        OutputError: a piece cannot be written.
    """
    folder = work / f"{what}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    for start in tqdm(range(0, count, ROWS_PER_PIECE), desc=what, disable=None):
        path = folder / f"{start // ROWS_PER_PIECE:05d}.safetensors"
        if not path.is_file():
            stop = min(start + ROWS_PER_PIECE, count)
            write_tensors(path, _computed(range(start, stop), compute, at_once))
        try:
            piece = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete it to have it made again.") from None
        yield piece


@torch.inference_mode()
def _computed(rows: range, compute: Callable[[range], Mapping[str, Tensor]], at_once: int) -> Tensors:
    parts = [compute(rows[at : at + at_once]) for at in range(0, len(rows), at_once)]
    return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}


def cached_features(
    work: Path,
    what: str,
    key: str,
    count: int,
    compute: Callable[[range], Mapping[str, Tensor]],
    *,
    at_once: int = ROWS_PER_PIECE,
) -> Tensors:
    """As `cached_pieces`, concatenated; each tensor has one row for each of the rows, in their order."""
    whole: Tensors = {}
    start = 0
    for piece in cached_pieces(work, what, key, count, compute, at_once=at_once):
        for name, value in piece.items():
            if name not in whole:  # all of it at once: pieces and whole together need twice the memory
                whole[name] = torch.empty(count, *value.shape[1:], dtype=value.dtype)
            whole[name][start : start + len(value)] = value
        start += len(next(iter(piece.values())))
    return whole
