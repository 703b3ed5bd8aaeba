"""`train.teach`, `train.teach_figures` and `train.memory`: the real model on a handful of regions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.corrections import CorrectedRegion, corrections_to_json
from ovseg_demo.teaching import LEAST_REGIONS, TaughtPrompts
from tests.quick_teaching import quick_teaching
from tests.train.named_scenes import BALL, BAND, SHEET, box_mask, photo_row, region, write_photo, write_rows
from train.core.options import run_command
from train.evaluation.memory import MemoryFiguresSettings
from train.evaluation.teaching import TeachFiguresSettings
from train.memory import memory
from train.teach import TeachSettings, teach_prompts
from train.teach_figures import teach_figures

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CORNER = (slice(46, 94), slice(70, 126))


def write_discs(folder: Path, count: int) -> Path:
    """An export of one photo: discs on the cow and on the grass."""
    folder.mkdir(parents=True)
    with Image.open(EXAMPLES / "cow.jpg") as opened:
        photo = opened.convert("RGB").resize((240, 240 * opened.height // opened.width))
    photo.save(folder / "corrected_photo.jpg")
    width, height = photo.size
    ys, xs = np.ogrid[:height, :width]
    draw = np.random.default_rng(0)
    regions = []
    for number in range(count):
        name, x0, y0, x1, y1 = (
            ("Bessie", 0.4, 0.4, 0.6, 0.6) if number % 2 else ("lawn", 0.1, 0.88, 0.9, 0.94)
        )
        x, y = draw.uniform(x0, x1) * width, draw.uniform(y0, y1) * height
        disc = (xs - x) ** 2 + (ys - y) ** 2 < (draw.uniform(0.04, 0.09) * width) ** 2
        regions.append(CorrectedRegion.of(disc, name))
    (folder / "corrections.json").write_text(json.dumps(corrections_to_json(regions)), "utf-8")
    return folder


def write_kind(root: Path, count: int) -> Path:
    """A data folder: photos of sky, rock and water, and as many that show none of these; all of fold 0."""
    rows = []
    for number in range(2 * count):
        name = f"coco_captions/images/{number:04d}.png"
        write_photo(root / name, number)
        names = ("sky", "rock", "water") if number < count else ("curtain", "balloon", "carpet")
        regions = [
            region(box_mask(window), names=[own])
            for window, own in zip((SHEET, BALL, CORNER), names, strict=True)
        ]
        band = region(box_mask(BAND), names=["stripe"])
        rows.append(photo_row(name, 0, [*regions, band]))
    write_rows(root, rows)
    return root


def test_too_few_corrections_are_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export, out = write_discs(tmp_path / "export", 4), tmp_path / "prompts.safetensors"
    with pytest.raises(SystemExit, match="2"):
        run_command(
            teach_prompts, TeachSettings, prog="train.teach", argv=["--from", str(export), "--out", str(out)]
        )
    said = capsys.readouterr().err
    assert f"There are 4 corrected regions with a name and teaching needs {LEAST_REGIONS}" in said
    assert said.count("\n") == 1 and not out.exists()


@pytest.mark.slow
def test_what_is_taught_is_written_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_teaching(monkeypatch, helps=True)
    export, out = write_discs(tmp_path / "export", 20), tmp_path / "prompts.safetensors"
    run_command(
        teach_prompts, TeachSettings, prog="train.teach", argv=["--from", str(export), "--out", str(out)]
    )
    told = capsys.readouterr().out
    taught = TaughtPrompts.load(out)
    assert "20 corrected regions of 2 names: lawn, Bessie" in told
    assert f"{taught.facts['right_before']} are named right before" in told
    assert f"and {taught.facts['right_after']} after" in told
    assert taught.facts["kept_out"] == 20 and taught.prompts.shape[1:] == (49, 192)
    assert out.stat().st_size < 150_000


@pytest.mark.slow
def test_nothing_is_written_where_nothing_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_teaching(monkeypatch, helps=False)
    export, out = write_discs(tmp_path / "export", 20), tmp_path / "prompts.safetensors"
    content = json.loads((export / "corrections.json").read_text("utf-8"))
    # Names by chance: nobody could learn them.
    names = np.random.default_rng(1).permutation(10 * ["this", "that"])
    for one, name in zip(content["regions"], names, strict=True):
        one["name"] = str(name)
    (export / "corrections.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(SystemExit, match="2"):
        run_command(
            teach_prompts, TeachSettings, prog="train.teach", argv=["--from", str(export), "--out", str(out)]
        )
    assert "Teaching does not help here: of 20 regions" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_figures_of_teaching_are_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_teaching(monkeypatch, helps=True)
    settings = TeachFiguresSettings(
        write_kind(tmp_path / "data", 12),
        kinds=("mountains",),
        regions=20,
        judged=8,
        json=tmp_path / "teach.json",
    )
    draws = teach_figures(settings)
    written = json.loads((tmp_path / "teach.json").read_text("utf-8"))
    told = capsys.readouterr().out
    assert len(draws) == len(written) == 1 and written[0]["kind"] == "mountains"
    assert draws[0].refused == "" and draws[0].regions == 21
    assert f"the kind's names {draws[0].rest_before:.1f} -> {draws[0].rest_after:.1f}" in told
    assert "taught in 1 of 1 draws" in told

    # The same draw, but what is learned is refused: nothing changes elsewhere.
    monkeypatch.undo()
    quick_teaching(monkeypatch, helps=False)
    monkeypatch.setattr("ovseg_demo.teaching.check.CHANCE", -1.0)
    (refused,) = teach_figures(settings)
    assert refused.refused.startswith("Teaching does not help here")
    assert (refused.rest_before, refused.others_before) == (refused.rest_after, refused.others_after)
    assert refused.rest_before == draws[0].rest_before
    assert "taught in 0 of 1 draws" in capsys.readouterr().out


def test_figures_of_a_memory_are_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = MemoryFiguresSettings(
        write_kind(tmp_path / "data", 5),
        arms=("adapted",),
        kinds=("mountains",),
        draws=2,
        unrelated=3,
        features_cache=tmp_path / "features",
        own_words=True,
        json=tmp_path / "memory.json",
    )
    memory(settings)
    first = (tmp_path / "memory.json").read_text("utf-8")
    figures = json.loads(first)["adapted"]["kinds that took part in choosing"]
    told = capsys.readouterr().out
    # Words that nobody knows, and photos that are as like as can be: a memory names what it has seen.
    assert figures["gain"]["value"] > 10
    assert f"mIoU {figures['miou_before']:.1f}, with a memory" in told and "2 draws" in told
    # A tree or a mountain is nowhere to be seen.
    assert figures["classes"].keys() == {f"mountains: {name}" for name in ("sky", "water", "rock")}
    assert "1,000 examples cost" in told
    assert len(list((tmp_path / "features").glob("*.npy"))) == 8
    memory(settings)  # from kept features, which are stored as half precision
    again = json.loads((tmp_path / "memory.json").read_text("utf-8"))["adapted"]
    assert again["kinds that took part in choosing"]["gain"]["value"] == pytest.approx(
        figures["gain"]["value"], abs=1.0
    )
