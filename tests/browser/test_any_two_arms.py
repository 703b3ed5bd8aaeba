"""The fields *Arm* and *Compared with*: any two arms of one CLIP or of two, on the same masks."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from visiting import PATIENCE_MS, Visit

from ovseg_demo.clip.open_clip_loading import empty_model

if TYPE_CHECKING:
    from tests.browser.conftest import Watched

pytestmark = pytest.mark.slow

OTHER = "hf-hub:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M"
"""A model of the lists; in its place are small random weights of our own, as if they had been downloaded."""
SMALL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 24, "width": 64, "heads": 2, "layers": 1},
}
SHOWN = """() => {
  const shown = ovseg.shown();
  return Object.fromEntries(Object.entries(shown.arms).map(([name, arm]) => [name, {
    boxes: arm.facts.map((fact) => [fact.id, ...fact.box]).sort((a, b) => a[0] - b[0]),
    names: arm.classes.map((one) => one.name),
  }]));
}"""


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other model lies in the hub's shared cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / f"models--{OTHER.removeprefix('hf-hub:').replace('/', '--')}"
    commit = "0" * 40
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    record = {"model_cfg": SMALL, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}
    (folder / "open_clip_config.json").write_text(json.dumps(record))
    torch.manual_seed(0)
    save_file(empty_model(SMALL, "small").state_dict(), folder / "open_clip_model.safetensors")


def fields(visit: Visit) -> None:
    """Open the settings down to both fields."""
    visit.page.locator("#settings button").first.click()
    visit.page.locator("#advanced button").first.click()
    visit.page.get_by_label("Compared with", exact=True).wait_for()


def choose(visit: Visit, label: str, arm: str) -> None:
    """Type an arm into a field, listed or not."""
    field = visit.page.get_by_label(label, exact=True)
    field.click()
    field.fill(arm)
    field.press("Enter")
    field.press("Tab")
    assert field.input_value() == arm


def run_again(visit: Visit) -> dict[str, Any]:
    """Press Run, wait for a result of other arms than are shown, and return its arms."""
    before = list(visit.page.evaluate(SHOWN))
    visit.page.locator("#run").click()
    visit.page.wait_for_function(
        "(before) => String(Object.keys(ovseg.shown()?.arms ?? {})) !== before && ovseg.shown()?.key",
        arg=",".join(before),
        timeout=PATIENCE_MS,
    )
    visit.wait_for_result()
    found: dict[str, Any] = visit.page.evaluate(SHOWN)
    return found


def test_any_two_arms_of_one_model(visit: Visit, watched: Watched, tmp_path: Path) -> None:
    visit.run()
    found = watched.begun
    fields(visit)
    choose(visit, "Arm", "context")
    choose(visit, "Compared with", "no-prompts")
    arms = run_again(visit)
    assert set(arms) == {"no-prompts", "context"}
    assert arms["context"]["boxes"] == arms["no-prompts"]["boxes"] and watched.begun == found
    assert visit.page.locator("[data-mode=vanilla]").inner_text() == "No-prompts"
    assert visit.page.locator("[data-mode=adapted]").inner_text() == "Context"
    with zipfile.ZipFile(visit.take_away(tmp_path)) as files:
        assert "no-prompts/overlay.png" in files.namelist()
        assert json.loads(files.read("comparison.json"))["arms"] == ["no-prompts", "context"]
    assert visit.complaints == []


@pytest.mark.usefixtures("downloaded")
def test_an_arm_of_another_model_names_the_same_masks(visit: Visit, watched: Watched, tmp_path: Path) -> None:
    visit.run("coffee.jpg", "cup, table")
    found = watched.begun
    fields(visit)
    arm = f"context@{OTHER}"
    choose(visit, "Compared with", arm)
    arms = run_again(visit)
    assert set(arms) == {arm, "adapted"} and watched.begun == found
    assert arms[arm]["boxes"] == arms["adapted"]["boxes"] and len(arms[arm]["boxes"]) > 1
    assert arms[arm]["names"] == arms["adapted"]["names"] == ["cup", "table"]
    badge = visit.page.locator("#badge").inner_text()
    assert "ovseg-mini" in badge and OTHER in badge
    with zipfile.ZipFile(visit.take_away(tmp_path)) as files:
        facts = [json.loads(files.read(n)) for n in files.namelist() if n.endswith("result.json")]
    clips = {fact["arm"]: fact["models"]["clip"] for fact in facts}
    assert clips[arm]["name"] == OTHER and clips["adapted"]["name"] == "ovseg-mini"
    assert clips[arm]["sha256"] != clips["adapted"]["sha256"]
    assert visit.complaints == [] and visit.elsewhere == []


@pytest.mark.parametrize(
    ("label", "arm", "said"),
    [
        (
            *("Compared with", "context@open_clip:ViT-B-16/laoin2b"),
            "This server has no model 'open_clip:ViT-B-16/laoin2b'; the nearest are ",
        ),
        ("Arm", "vanilla@clip-vit-b16", "the nearest are clip-vit-b-16, "),
        ("Arm", "contxt", "There is no arm called 'contxt'; choose from vanilla, "),
        ("Arm", f"adapted@{OTHER}", "This model has no adapted arm, only vanilla and context."),
    ],
)
@pytest.mark.usefixtures("downloaded")
def test_what_does_not_exist_is_one_sentence_and_the_result_stays(
    visit: Visit, label: str, arm: str, said: str
) -> None:
    visit.run()
    before = visit.page.evaluate(SHOWN)
    fields(visit)
    choose(visit, label, arm)
    visit.page.locator("#run").click()
    visit.waits_for(said, "body")
    visit.page.locator("#run").wait_for(timeout=PATIENCE_MS)
    told = visit.page.evaluate(
        "(said) => [...document.querySelectorAll('body *')].find((one) => !one.children.length"
        " && one.textContent.includes(said)).textContent",
        said,
    )
    assert re.fullmatch(r"(?!.*\. [A-Z]).*\. \(request \w+\)", told.strip())  # one sentence
    assert visit.page.evaluate(SHOWN) == before
