"""What the fields offer, what a link may set, and the badge that says what one may do with the models."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import pytest

from ovseg_demo.models import listed_names
from ovseg_demo.page.controls import listed_models, model_badge
from ovseg_demo.page.events import own_proposer, share_of_clip
from ovseg_demo.page.links import restored
from ovseg_demo.settings import Settings


def test_the_badge_stays_while_any_model_forbids_commercial_use() -> None:
    assert "non-commercial use only" in model_badge("ovseg-mini", "mobile-sam")
    assert "restricted" not in model_badge("clip-vit-b-16", "mobile-sam")
    assert "MIT, Apache-2.0" in model_badge("clip-vit-b-16", "mobile-sam")
    assert "restricted" in model_badge("clip-vit-b-16", "maskformer")
    assert "<b></b>" in model_badge("<script>", "none")


def test_a_model_brings_the_proposer_it_was_published_with() -> None:
    assert own_proposer("ovseg-swinb-vit-l-14") == "maskformer"
    assert own_proposer("ovseg-r101c-vit-b-16") == "maskformer-r101c"
    assert isinstance(own_proposer("ovseg-mini"), dict) and isinstance(own_proposer("nothing"), dict)


@pytest.mark.parametrize(
    ("told", "field", "value"),
    [
        ("cow, <b>", gr.Textbox(), "cow, <b>"),
        ("false", gr.Checkbox(), False),
        ("true", gr.Checkbox(), True),
        ("1.5", gr.Slider(-3, 3), 1.5),
        ("9", gr.Slider(-3, 3), None),
        ("nan", gr.Slider(-3, 3), None),
        ("many", gr.Slider(-3, 3), None),
        ("768", gr.Dropdown([("768 px", 768), ("1024 px", 1024)]), 768),
        ("7", gr.Dropdown([("768 px", 768)]), None),
        ("../../x", gr.Dropdown(["ovseg-mini"]), None),
    ],
)
def test_a_link_sets_what_is_offered_and_nothing_else(told: str, field: object, value: object) -> None:
    found = restored(told, field)
    assert found == value if value is not None else isinstance(found, dict)


def test_clip_has_a_share_only_beside_a_proposer_that_names_its_masks() -> None:
    with gr.Blocks():
        with_maskformer, without = share_of_clip("maskformer"), share_of_clip("mobile-sam")
    assert with_maskformer.visible and not without.visible
    assert without.value == 0


def test_the_list_of_models_says_how_large_and_slow_each_is_and_what_is_not_here(tmp_path: Path) -> None:
    listed = {name: label for label, name in listed_models("clip", Settings(cache_dir=tmp_path))}
    assert set(listed) == set(listed_names("clip"))
    assert re.fullmatch(r"ovseg-mini, \d+ MB, seconds", listed["ovseg-mini"])
    assert re.fullmatch(
        r"clip-vit-l-14, \d+\.\d GB, minutes .*, not on this machine", listed["clip-vit-l-14"]
    )


def test_sam2_and_models_of_open_clip_are_listed_with_licence_and_size(tmp_path: Path) -> None:
    masks = {name: label for label, name in listed_models("proposer", Settings(cache_dir=tmp_path))}
    assert set(masks) == set(listed_names("proposer"))
    for size, told in (("tiny", "156 MB"), ("small", "184 MB"), ("base-plus", "323 MB"), ("large", "898 MB")):
        name = f"hf-hub:facebook/sam2.1-hiera-{size}"
        assert re.fullmatch(rf"{name}, {told}, [\w ]+, Apache-2\.0, not on this machine", masks[name])
    clips = {name: label for label, name in listed_models("clip", Settings(cache_dir=tmp_path))}
    mobile = clips["open_clip:MobileCLIP2-S0/dfndr2b"]
    assert mobile.endswith("Apple AMLR, research use only, not on this machine")
    badge = model_badge("open_clip:MobileCLIP2-S0/dfndr2b", "hf-hub:facebook/sam2.1-hiera-tiny")
    assert "restricted" in badge and "non-commercial" in badge and "sam2.1-hiera-tiny" in badge


def test_a_model_of_the_hub_that_was_downloaded_is_on_this_machine(tmp_path: Path) -> None:
    name = "hf-hub:facebook/sam2.1-hiera-tiny"
    cached = tmp_path / "hub" / "models--facebook--sam2.1-hiera-tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cached / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(b"weights")
    masks = {name: label for label, name in listed_models("proposer", Settings(cache_dir=tmp_path))}
    assert "not on this machine" not in masks[name]
    assert "not on this machine" in masks[name.replace("tiny", "small")]
