"""The benchmark runs the real loop, and its arithmetic is that of the published sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovseg_demo.errors import SettingsError
from tests.train.synthetic_pairs import write_pairs
from train.benchmark import SHAPES, BenchmarkSettings, benchmark, operations_per_image


@pytest.mark.parametrize(("name", "forward"), [("vit-b-16", 35.2e9), ("vit-l-14", 162e9)])
def test_operations_are_those_of_the_published_towers(name: str, forward: float) -> None:
    # Twice the 17.6 and 81 thousand million multiply-adds that are published for these towers.
    assert operations_per_image(SHAPES[name], "finetune") == pytest.approx(3 * forward, rel=0.02)
    assert operations_per_image(SHAPES[name], "prompt_tune") == pytest.approx(2 * forward, rel=0.02)


@pytest.mark.parametrize("method", ["finetune", "prompt_tune"])
def test_a_tiny_model_is_timed(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = benchmark(
        BenchmarkSettings(
            architecture="tiny",
            method=method,  # type: ignore[arg-type]
            batch=8,
            accumulate=2,
            steps=3,
            nouns=50,
            device="cpu",
            card_tflops=1.0,
            json=tmp_path / "figures.json",
        )
    )
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert figures["steps"] == 3
    assert figures["images_per_s"] == pytest.approx(8 / figures["seconds_per_step"], rel=0.05)
    assert figures["memory_gib"] > 0
    assert 0 < figures["share_of_matrix_rate"] < 1
    assert "images per s" in capsys.readouterr().out


def test_crops_may_be_read_as_in_a_real_run(tmp_path: Path) -> None:
    pairs = (write_pairs(tmp_path / "pairs", 16),)
    figures = benchmark(BenchmarkSettings("tiny", batch=8, steps=2, pairs=pairs, workers=1, device="cpu"))
    assert figures["reads_crops"] is True
    assert figures["images_per_s"] > 0


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="--steps must be at least 1, not 0"):
        BenchmarkSettings(steps=0)
    with pytest.raises(SettingsError, match="--batch 9 is no multiple of --accumulate 2"):
        BenchmarkSettings(batch=9, accumulate=2)
