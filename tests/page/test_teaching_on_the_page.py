"""Teaching on the page: what the viewer sends and what it gets, on the real models."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg_demo.imaging import load_image
from ovseg_demo.output.mask_formats import encode_rle
from ovseg_demo.page.handlers import Request, run
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.teaching import teaching_steps
from ovseg_demo.settings import Settings
from ovseg_demo.teaching import TaughtPrompts
from tests.quick_teaching import quick_teaching

EXAMPLES = Path(__file__).parents[2] / "examples"


def lessons(names: tuple[str, str] = ("sheep", "lawn"), each: int = 10) -> list[dict[str, Any]]:
    """Discs on the cow and on the grass of an example."""
    height, width = load_image(EXAMPLES / "cow.jpg").shape[:2]
    ys, xs = np.ogrid[:height, :width]
    draw = np.random.default_rng(0)
    regions = []
    for name, (x0, y0, x1, y1) in zip(names, ((0.4, 0.4, 0.6, 0.6), (0.05, 0.85, 0.95, 0.95)), strict=True):
        for _ in range(each):
            x, y = draw.uniform(x0, x1) * width, draw.uniform(y0, y1) * height
            radius = draw.uniform(0.04, 0.09) * width
            regions.append({"counts": encode_rle((xs - x) ** 2 + (ys - y) ** 2 < radius**2), "name": name})
    return [{"path": "", "map": [height, width], "regions": regions}]


def sent(folder: Path, photos: list[dict[str, Any]], **more: Any) -> str:
    """As the viewer uploads it."""
    copy = folder / "cow.jpg"
    copy.write_bytes((EXAMPLES / "cow.jpg").read_bytes())
    content = {"photos": [{**one, "path": str(copy)} for one in photos], **more}
    (folder / "lessons.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder / "lessons.json")


def test_prompts_come_back_with_what_they_do_for_regions_kept_out(
    pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_teaching(monkeypatch, helps=False)
    steps = list(teaching_steps(sent(tmp_path, lessons()), pool, tmp_path))
    told = (
        r"does not help here: of 20 regions, each named by prompts that had not seen it, \d+ are right before"
    )
    assert re.search(told, steps[-1]["error"]) and "prompts" not in steps[-1]

    quick_teaching(monkeypatch, helps=True)
    steps = list(teaching_steps(sent(tmp_path, lessons()), pool, tmp_path))
    shares = [step["fraction"] for step in steps if step["kind"] == "teaching"]
    assert shares == sorted(shares) and len(shares) > 24
    last = steps[-1]
    assert last["kind"] == "taught" and "error" not in last
    assert last["facts"]["regions"] == last["facts"]["kept_out"] == 20
    taught = TaughtPrompts.from_bytes(base64.b64decode(last["prompts"]))
    assert len(taught.to_bytes()) < 150_000
    assert taught.weights == pool.get(pool.default).weights_id("adapted")


def test_too_little_and_nonsense_are_one_sentence(pool: ModelPool, tmp_path: Path) -> None:
    def told(asked: str | None) -> str:
        last = list(teaching_steps(asked, pool, tmp_path))[-1]
        assert last["kind"] == "taught" and "prompts" not in last
        return str(last["error"])

    assert "There are 6 corrected regions with a name and teaching needs 20" in told(
        sent(tmp_path, lessons(each=3))
    )
    assert "no corrected photos" in told(sent(tmp_path, []))
    assert "at most 100 photos and 101 were sent" in told(sent(tmp_path, 101 * [{"path": "x"}]))
    assert "no model" in told(sent(tmp_path, lessons(), models={"model": "../secret"}))
    assert "no longer on the server" in told(None)
    assert "no longer on the server" in told(str(EXAMPLES / "cow.jpg"))
    broken = lessons()
    broken[0]["regions"][0]["counts"] = "~"
    assert "cannot be read" in told(sent(tmp_path, broken))


def test_a_run_with_prompts_compares_them_with_the_adapted_arm(
    pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg_demo.page.handlers.upload_folder", lambda: tmp_path)
    clip = pool.get(pool.default).classifier("adapted").clip
    own = clip.image_tower.prompts.mask_embedding.detach().float().numpy()  # type: ignore[union-attr]
    moved = own + np.random.default_rng(1).normal(0, 1.0, own.shape).astype(np.float32)
    TaughtPrompts(moved, clip.name, clip.weights_id, {}).save(tmp_path / "prompts.safetensors")
    asked = Request(
        photo=str(EXAMPLES / "cow.jpg"),
        words="cow, grass, sheep",
        compare=True,
        model=Settings.model,
        proposer=Settings.proposer,
        templates="single",
        merge="default",
        max_side_px=320,
        prompts=str(tmp_path / "prompts.safetensors"),
    )
    last = list(run(asked, pool))[-1]
    assert list(last.payload["arms"]) == ["yours", "adapted"]
    assert last.payload["asked"] == {**last.payload["asked"], "arm": ""}
    before, after = (last.payload["arms"][arm]["facts"] for arm in ("adapted", "yours"))
    assert [one["top"] for one in before] != [one["top"] for one in after]
    # Without them, in the next request of anybody, the arm is what it was.
    again = list(run(Request(**{**vars(asked), "prompts": None, "against": "adapted"}), pool))[-1]
    assert [one["top"] for one in again.payload["arms"]["adapted"]["facts"]] == [one["top"] for one in before]
    assert "yours" not in again.payload["arms"]
