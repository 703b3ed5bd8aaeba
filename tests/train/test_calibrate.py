"""Calibration: real arms, photos that may be tuned on, numbers beside the weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from ovseg_demo.merging import MergeSettings
from train.calibrate import CalibrateSettings, calibrate
from train.data.sources import DataError

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "ovseg-mini"


@pytest.mark.slow
def test_the_numbers_go_beside_the_weights(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(SHIPPED, tmp_path / "mini")
    before = json.loads((model / "config.json").read_text("utf-8"))
    calibrate(CalibrateSettings(model, data=shared, photos=4, arms=("adapted",)))
    after = json.loads((model / "config.json").read_text("utf-8"))
    found = after["calibration"]["adapted"]
    assert found.keys() == asdict(MergeSettings()).keys()
    assert found != before["calibration"]["adapted"]
    assert {**after, "calibration": 0} == {**before, "calibration": 0}
    assert after["calibration"]["vanilla"] == before["calibration"]["vanilla"]
    assert "adapted: 4 photos, mIoU" in capsys.readouterr().out


@pytest.mark.parametrize("data_set", ["msrc21", "coco-val"])
def test_evaluation_sets_are_refused(shared: Path, tmp_path: Path, data_set: str) -> None:
    with pytest.raises(DataError, match="not to be tuned on"):
        calibrate(CalibrateSettings(tmp_path, data_set, shared))
