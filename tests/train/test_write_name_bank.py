"""The bank of names from photos: drawn scenes, a small model of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from tests.tiny_mini import write_mini
from tests.train.named_scenes import BALL, SHEET, box_mask, write_named_scenes
from train.data.named_regions import read_named_regions
from train.name_bank import NameBankSettings, name_bank

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_named_scenes(tmp_path / "data")


def test_known_regions_vote_for_their_own_names(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_mini(tmp_path / "mini")
    cache = tmp_path / "features"
    cache.mkdir()
    settings = NameBankSettings(model, scenes, 8, true_masks=False, features_cache=cache)
    name_bank(settings)
    assert "known regions with" in capsys.readouterr().out
    clip = load_clip(model, weights="context")
    assert clip.bank is not None
    photos = read_named_regions(scenes, (1, 2, 3, 4))
    assert "sky" in clip.bank.names
    masks = np.stack([box_mask(SHEET), box_mask(BALL)])
    features = clip.encode_photo_regions(photos[0].read(), masks).numpy()
    votes = clip.bank.log_votes(features, ["sky", "ball"])
    assert votes[0, 0] > votes[0, 1]
    assert votes[1, 1] > votes[1, 0]
    assert len(list(cache.glob("*.npy"))) == len(photos)  # fold 0 is not looked at


def test_too_many_dimensions_are_refused(scenes: Path, tmp_path: Path) -> None:
    settings = NameBankSettings(write_mini(tmp_path / "mini"), scenes, 5000, true_masks=False)
    with pytest.raises(SettingsError, match=r"--dimensions 5000 is more than the 1152"):
        name_bank(settings)
    with pytest.raises(SettingsError, match="--dimensions must be at least 1"):
        NameBankSettings(dimensions=0)
