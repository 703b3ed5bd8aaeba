"""Fold 0's figure: a region is right by any of its names, among all names, with intervals over photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from tests.train.named_scenes import box_mask, photo_row, region, write_named_scenes, write_photo, write_rows
from train.data.named_regions import read_named_regions
from train.evaluation.named_accuracy import accuracy, all_names, count_right, gain
from train.fold0 import FoldSettings, fold0


def test_any_of_a_regions_names_counts_and_no_other(tmp_path: Path, small_clip: Path) -> None:
    clip = load_clip(small_clip, weights="vanilla")
    masks = [box_mask((slice(0, 40), slice(0, 128))), box_mask((slice(50, 90), slice(10, 60)))]
    name = "sun_scenes/images/a.png"
    write_photo(tmp_path / name, 0)
    words = [f"word {letter}" for letter in "abcdefgh"]
    write_rows(tmp_path, [photo_row(name, 0, [region(mask, names=[words[0]]) for mask in masks])])
    (photo,) = read_named_regions(tmp_path)
    features = clip.encode_photo_regions(photo.read(), np.stack(masks))
    best = [words[k] for k in (features @ clip.encode_text(words, "single").T).argmax(1)]
    others = [word for word in words if word not in best]
    rows = [
        region(masks[0], names=[others[0], best[0]]),
        region(masks[1], names=[others[0], others[1]]),
        region(masks[1], names=[]),
        region(masks[1]),
    ]
    write_rows(tmp_path, [photo_row(name, 0, rows), photo_row(name, 0, rows[2:])])
    photos = read_named_regions(tmp_path)
    assert count_right(clip, photos, words, "single").tolist() == [[1, 2], [0, 0]]
    assert all_names(photos) == sorted({best[0], others[0], others[1]})


def test_intervals_are_over_photos() -> None:
    rng = np.random.default_rng(0)
    asked = rng.integers(1, 12, 80)
    good, less = (np.stack([rng.binomial(asked, p), asked], axis=1) for p in (0.6, 0.5))
    figure = accuracy(good, 2000, 0)
    assert figure.value == pytest.approx(100 * good[:, 0].sum() / asked.sum())
    assert figure.interval[0] < figure.value < figure.interval[1]
    more = gain(good, less, 2000, 0)
    assert more.value == pytest.approx(figure.value - accuracy(less, 10, 0).value)
    assert more.interval[0] < more.value < more.interval[1]
    assert gain(good, good, 100, 0).interval == (0, 0)
    # One photo that holds everything makes the figure uncertain; many equal ones do not.
    sure = accuracy(np.tile([[3, 5]], (60, 1)), 500, 0)
    assert sure.interval == (60, 60)


def test_the_command_asks_fold_0_alone_and_names_of_all_folds(
    tmp_path: Path, small_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_named_scenes(tmp_path)
    out = tmp_path / "fold0.json"
    with torch.no_grad():
        fold0(FoldSettings(model=str(small_clip), weights=("vanilla",), data=root, draws=20, json=out))
    told = json.loads(out.read_text())
    assert (told["regions"], told["photos"], told["names"]) == (3, 1, 5)
    assert told["arms"]["vanilla"]["top1"] in (pytest.approx(100 * k / 3) for k in range(4))
    assert "3 regions of 1 photos among 5 names" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="--draws 0"):
        FoldSettings(draws=0)
