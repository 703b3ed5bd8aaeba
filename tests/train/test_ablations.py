"""The ablations: every run once, the same regions for every row, the paper's figures beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from tests.train.synthetic_pairs import COLOURS, write_pairs
from train.ablations import AblationSettings, Row, known_and_new, main, table
from train.data.folders import read_folders
from train.data.truth import TRUTH_SETS
from train.evaluation.region_accuracy import RegionEvaluator
from train.finetune import FinetuneSettings
from train.zeroshot import ZeroshotSettings, region_accuracy


@pytest.fixture
def drawn_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos, each with two strokes of the pairs' colours, as a data set called "drawn"."""
    rng = np.random.default_rng(0)
    for number in range(6):
        photo = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
        truth = Image.new("L", photo.size, 255)
        for place, index in enumerate(((number % 4), (number + 1) % 4)):
            line = (5 + 60 * place, 10, 50 + 60 * place, 70)
            for picture, ink in ((photo, list(COLOURS.values())[index]), (truth, index)):
                ImageDraw.Draw(picture).line(line, fill=ink, width=16)
        for folder, picture in (("photos", photo), ("truth", truth)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{number}.png")
    (tmp_path / "names.txt").write_text("\n".join(COLOURS))
    folders = (tmp_path / "photos", tmp_path / "truth", tmp_path / "names.txt")
    monkeypatch.setitem(TRUTH_SETS, "drawn", lambda root: read_folders(*folders, ignore=255))
    return tmp_path


@pytest.mark.parametrize("masked", [True, False])
def test_cached_features_name_regions_as_the_model_does(
    drawn_set: Path, small_clip: Path, masked: bool
) -> None:
    clip = load_clip(small_clip, weights="vanilla")
    regions = RegionEvaluator("drawn", drawn_set, photos=0, keep=drawn_set / "kept")
    settings = ZeroshotSettings(model=str(small_clip))
    wanted = region_accuracy(clip, TRUTH_SETS["drawn"](drawn_set), settings, masked=masked)
    for _ in range(2):  # made, then read
        named = regions.evaluate(clip, masked=masked)
        assert named.regions.sum() == wanted["regions"] == 12
        assert named.top1() == pytest.approx(wanted["top1"])
        assert named.per_class() == pytest.approx(wanted["mean_per_class"])
    assert named.top1([0]) == 100 * named.right[0] / named.regions[0]
    assert np.isnan(named.top1([]))


def settings_for(drawn_set: Path, small_clip: Path, name: str) -> AblationSettings:
    pairs = (write_pairs(drawn_set / "pairs"),)
    return AblationSettings(
        name=name,  # type: ignore[arg-type]
        pairs=pairs,
        true_pairs=pairs,
        one_caption=pairs,
        model=str(small_clip),
        sets=("drawn",),
        epochs=0.5,
        work=drawn_set / "work",
        data=drawn_set,
        json=drawn_set / "table.json",
    )


@pytest.mark.slow
def test_runs_are_made_once_and_gone_on_from(drawn_set: Path, small_clip: Path) -> None:
    settings = settings_for(drawn_set, small_clip, "order")
    main(settings)
    rows = json.loads((drawn_set / "table.json").read_text())["rows"]
    assert all(0 <= row["ours"]["drawn top-1"] <= 100 for row in rows)
    work = drawn_set / "work"
    assert len(list(work.rglob("adapted.safetensors"))) == 5, "FT and MPT are made once and gone on from"
    assert len(list((work / "kept").glob("stems_*"))) == FinetuneSettings.views, "one for all runs"
    states = {path: path.stat().st_mtime_ns for path in work.rglob("state.pt")}
    main(settings)
    assert states == {path: path.stat().st_mtime_ns for path in work.rglob("state.pt")}


def test_masking_needs_no_training(drawn_set: Path, small_clip: Path) -> None:
    main(settings_for(drawn_set, small_clip, "masking"))
    rows = json.loads((drawn_set / "table.json").read_text())["rows"]
    assert [row["title"] for row in rows] == ["background painted over", "rectangle as it is"]
    assert not list((drawn_set / "work").rglob("state.pt"))


def test_known_classes_are_those_the_fixed_names_hold() -> None:
    fixed = ["airplane", "person", "cow", "dining table"]
    classes = ("building", "cow", "aeroplane", "grass", "girl")
    assert known_and_new(classes, fixed) == {"known": [1, 2, 4], "new": [0, 3]}


def test_the_table_shows_gains_over_the_first_row() -> None:
    rows = [Row("vanilla", {"a": 50.0}, 21.8), Row("FT", {"a": 57.5}, 28.8), Row("odd", {"a": 49.0}, None)]
    assert table(rows).splitlines()[2:] == [
        "| vanilla | 50.0 | 21.8 |",
        "| FT | 57.5 (+7.5) | 28.8 (+7.0) |",
        "| odd | 49.0 (-1.0) | - |",
    ]


def test_no_seeds_are_refused() -> None:
    with pytest.raises(SettingsError, match="--seeds 0"):
        AblationSettings("depth", seeds=0)
