"""Other views of a region keep what it is; what is computed of them is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.data.augment import augmented
from train.data.feature_cache import ROWS_PER_PIECE, cached_features, cached_pieces
from train.data.sources import DataError


def test_another_view_shows_most_of_the_region_in_another_light() -> None:
    image = np.full((60, 80, 3), (200, 100, 50), dtype=np.uint8)
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:, 5:] = True
    shapes, colours, areas = set(), set(), []
    for seed in range(40):
        view, shape = augmented(image, mask, 0.24, np.random.default_rng(seed))
        again, same = augmented(image, mask, 0.24, np.random.default_rng(seed))
        assert np.array_equal(view, again) and np.array_equal(shape, same)
        assert view.shape[:2] == shape.shape and view.dtype == np.uint8 and shape.dtype == bool
        assert view.shape[0] >= 60 * 0.75 and view.shape[1] >= 80 * 0.75
        shapes.add(view.shape[:2])
        colours.add(tuple(view[0, 0]))
        areas.append(shape.sum() / mask.sum())
    assert len(shapes) > 20 and len(colours) == 40
    assert min(areas) > 0.45 and len(set(areas)) > 20
    assert augmented(image, mask, 0.0, np.random.default_rng(0))[0].shape == image.shape


def test_a_cut_that_would_lose_the_region_is_not_made() -> None:
    mask = np.zeros((50, 50), dtype=bool)
    mask[:4, :4] = True  # in a corner that every cut goes through
    image = np.zeros((50, 50, 3), dtype=np.uint8)
    for seed in range(20):
        assert augmented(image, mask, 0.6, np.random.default_rng(seed))[1].any()


def test_pieces_that_are_there_are_not_computed_again(tmp_path: Path) -> None:
    asked: list[range] = []

    def compute(rows: range) -> dict[str, torch.Tensor]:
        asked.append(rows)
        numbers = torch.tensor(list(rows))
        return {"square": numbers**2, "row": numbers[:, None]}

    count = 2 * ROWS_PER_PIECE + 5
    first = cached_features(tmp_path, "squares", "key", count, compute, at_once=100)
    assert first["square"].tolist() == [row**2 for row in range(count)]
    assert first["row"].shape == (count, 1)
    assert max(map(len, asked)) == 100 and sum(map(len, asked)) == count
    asked.clear()
    (folder,) = tmp_path.iterdir()
    pieces = sorted(folder.iterdir())
    pieces[1].unlink()
    again = cached_features(tmp_path, "squares", "key", count, compute, at_once=100)
    assert torch.equal(first["square"], again["square"])
    assert {row for rows in asked for row in rows} == set(range(ROWS_PER_PIECE, 2 * ROWS_PER_PIECE))
    cached_features(tmp_path, "squares", "another key", 3, compute)
    assert len(list(tmp_path.iterdir())) == 2
    pieces[0].write_bytes(b"cut")
    with pytest.raises(DataError, match=rf"{pieces[0].name} cannot be read .* delete it"):
        list(cached_pieces(tmp_path, "squares", "key", count, compute))
