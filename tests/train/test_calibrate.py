"""Calibration: real arms, photos of fold 0, numbers beside the weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from ovseg_demo.merging import MergeSettings
from train.calibrate import CalibrateSettings, calibrate

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "ovseg-mini"


@pytest.mark.slow
def test_the_numbers_go_beside_the_weights(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(SHIPPED, tmp_path / "mini")
    before = json.loads((model / "config.json").read_text("utf-8"))
    settings = CalibrateSettings(
        model,
        ("adapted",),
        shared,
        features_cache=tmp_path / "features",
        photos=4,
        plot=tmp_path / "plot.png",
    )
    calibrate(settings)
    first = (model / "config.json").read_text("utf-8")
    after = json.loads(first)
    found = after["calibration"]["adapted"]
    assert found.keys() == asdict(MergeSettings()).keys()
    assert found != before["calibration"]["adapted"]
    assert {**after, "calibration": 0} == {**before, "calibration": 0}
    assert after["calibration"]["vanilla"] == before["calibration"]["vanilla"]
    assert "adapted: 4 photos; sensible" in capsys.readouterr().out
    assert (tmp_path / "plot.png").is_file()
    assert len(list((tmp_path / "features").glob("*.npy"))) == 4
    calibrate(settings)  # from kept features, which are stored as half precision
    again = json.loads((model / "config.json").read_text("utf-8"))["calibration"]["adapted"]
    assert again["logit_scale"] == pytest.approx(found["logit_scale"], rel=0.05)
