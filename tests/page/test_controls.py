"""What the fields offer, what a link may set, and the badge that says what one may do with the models."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import pytest

from ovseg_demo.page.api import names_of
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
    assert set(listed) == set(names_of("clip"))
    assert re.fullmatch(r"ovseg-mini, \d+ MB, seconds", listed["ovseg-mini"])
    assert re.fullmatch(
        r"clip-vit-l-14, \d+\.\d GB, minutes .*, not on this machine", listed["clip-vit-l-14"]
    )
