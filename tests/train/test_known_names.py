"""Which names' features are kept beside the weights, and that they are the ones that would be computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from tests.tiny_mini import write_mini
from tests.train.named_scenes import write_named_scenes
from train.exporting.weights import preset_names, read_hashes
from train.known_names import KnownNamesSettings, common_names, known_names

# pycocotools has not caught up with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_names_are_taken_by_the_captions_that_mention_them() -> None:
    candidates = ["side", "red ball", "ball", "owl", "kite", "red kite at night"]
    captions = ["A red ball.", "Two Kites, a kite and a ball", "ball ball ball", "the side of a kite"]
    assert common_names(candidates, captions, 3) == ["ball", "kite", "red ball"]
    # Names that no caption mentions come last, in the order given.
    assert common_names(candidates, captions, 9) == ["ball", "kite", "red ball", "owl", "red kite at night"]


def test_features_of_names_lie_beside_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes, model = write_named_scenes(tmp_path / "data"), write_mini(tmp_path / "mini")
    (scenes / "flickr8k").mkdir()
    (scenes / "flickr8k" / "captions.csv").write_text("image,split,caption\na.webp,train,A red ball .\n")
    (scenes / "flickr8k" / "aspect.csv").write_text("image,aspect\na.webp,1.5\n")
    count = len(preset_names()) + 1
    known_names(KnownNamesSettings(model, scenes, count))
    assert f"{count} names" in capsys.readouterr().out
    assert "names.safetensors" in read_hashes(model)
    for arm in ("vanilla", "adapted", "context"):
        clip = load_clip(model, weights=arm)  # type: ignore[arg-type]
        assert len(clip.known_names) == count
        assert ("band", "vild") not in clip.known_names  # no caption mentions it
        for name in ("ball", "traffic light"):
            computed = clip.encode_text([name])[0]
            torch.testing.assert_close(clip.known_names[name, "vild"], computed, atol=2e-4, rtol=1e-3)


def test_no_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="--names must be at least 1"):
        KnownNamesSettings(names=0)
