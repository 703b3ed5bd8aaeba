"""A request is answered step by step, and whatever goes wrong is one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ovseg_demo.models import default_arm
from ovseg_demo.output.export import EXPORTS, export
from ovseg_demo.page.events import same_photo
from ovseg_demo.page.handlers import PageUpdate, Request, run, without_masks
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.suggestions import nouns, what_else
from ovseg_demo.progress import run_to_end
from ovseg_demo.result import Comparison, Segmentation
from ovseg_demo.settings import Settings

COW = Path(__file__).parents[2] / "examples" / "cow.jpg"
ASKED = Request(
    photo=str(COW),
    words="cow, grass, zebra",
    compare=True,
    model=Settings.model,
    proposer=Settings.proposer,
    templates="vild",
    merge="default",
    max_side_px=320,
)


@pytest.fixture(scope="module")
def answer(pool: ModelPool) -> list[PageUpdate]:
    return list(run(ASKED, pool))


def test_the_photo_is_shown_first_and_the_result_last(answer: list[PageUpdate]) -> None:
    assert answer[0].payload["kind"] == "working" and answer[0].payload["photo"]["width"] == 1024
    assert [step.payload["kind"] for step in answer[1:-1]] == ["working"] * (len(answer) - 2)
    assert answer[-1].payload["kind"] == "result"


def test_progress_never_goes_back(answer: list[PageUpdate]) -> None:
    fractions = [step.payload["fraction"] for step in answer[:-1]]
    assert fractions == sorted(fractions)


def test_regions_are_drawn_while_they_are_found_and_before_they_are_named(answer: list[PageUpdate]) -> None:
    drawn = [step.payload["preview"] for step in answer if "preview" in step.payload]
    assert len(drawn) >= 3
    counts = [len(preview["paths"]) for preview in drawn]
    assert counts[0] > 0 and "so far" in answer[-1 - len(drawn)].payload["message"]
    result = answer[-1].result
    assert isinstance(result, Comparison)
    # Specks and what is nearly the same are not drawn.
    assert 0.8 * len(result.second.regions) <= counts[-1] <= len(result.second.regions)
    assert drawn[-1]["fresh"] == 0 and abs(drawn[-1]["width"] / drawn[-1]["height"] - 4 / 3) < 0.02
    assert max(len(json.dumps(preview)) for preview in drawn) < 60_000


def test_nothing_is_drawn_where_only_words_change(pool: ModelPool, answer: list[PageUpdate]) -> None:
    assert not any("preview" in step.payload for step in run(replace(ASKED, words="cow, hill"), pool))


def test_the_result_has_both_arms_and_says_how_long_it_took(answer: list[PageUpdate]) -> None:
    assert isinstance(answer[-1].result, Comparison)
    assert set(answer[-1].payload["arms"]) == {"adapted", "vanilla"}
    assert "Done in" in answer[-1].payload["timing"] and not answer[-1].payload["again"]
    assert "Done in" not in answer[-1].payload["message"]


def test_one_arm_is_enough_if_no_comparison_is_wanted(pool: ModelPool) -> None:
    last = list(run(replace(ASKED, compare=False), pool))[-1]
    best = default_arm(ASKED.model)
    assert isinstance(last.result, Segmentation) and set(last.payload["arms"]) == {best}


def test_other_words_on_the_same_photo_are_scored_without_looking_again(
    pool: ModelPool, answer: list[PageUpdate]
) -> None:
    last = list(run(replace(ASKED, words="cow, meadow"), pool))[-1]
    assert "Only the words were scored again" in last.payload["timing"]


def test_strictness_needs_no_second_look_either(pool: ModelPool, answer: list[PageUpdate]) -> None:
    last = list(run(replace(ASKED, strictness=60.0), pool))[-1]
    assert "Only the words were scored again" in last.payload["timing"]
    assert last.payload["message"] == "None of these words fit."
    assert last.payload["arms"]["adapted"]["unassigned_fraction"] == 1.0


def test_the_first_request_says_what_is_loaded(pool: ModelPool) -> None:
    other = ModelPool(pool.settings)
    told = []
    steps = run(ASKED, other)
    for step in steps:
        told.append(step.payload["message"])
        if "Loading" in told[-1]:
            break
    steps.close()  # type: ignore[attr-defined]
    assert re.search(r"Loading ovseg-mini \(\d+ MB\) and mobile-sam \(\d+ MB\), once", told[-1])


def test_what_is_kept_for_a_visitor_is_the_result_without_its_masks(answer: list[PageUpdate]) -> None:
    result = answer[-1].result
    assert isinstance(result, Comparison) and result.second.masks is not None
    kept = without_masks(result)
    assert isinstance(kept, Comparison) and kept.second.masks is None and kept.first.masks is None
    assert export(kept.second, tuple(EXPORTS)) == export(result.second, tuple(EXPORTS))


def test_the_same_photo_is_known_by_its_pixels(answer: list[PageUpdate], tmp_path: Path) -> None:
    result = answer[-1].result
    assert result is not None
    other = tmp_path / "other name.png"
    Image.open(COW).save(other)
    assert same_photo(str(COW), result) and same_photo(str(other), result)
    assert not same_photo(str(COW.with_name("coffee.jpg")), result)
    assert not same_photo(None, result) and not same_photo(__file__, result)


def test_what_else_names_things_that_were_not_typed(pool: ModelPool, answer: list[PageUpdate]) -> None:
    request = replace(ASKED, words="zebra")
    result = list(run(request, pool))[-1].result
    for known in (result, None):
        names = run_to_end(what_else(request, known, pool))
        assert names and "zebra" not in names
        assert set(names) <= set(nouns())


def test_every_step_says_whose_photo_it_is_about(answer: list[PageUpdate]) -> None:
    assert {step.payload["of"] for step in answer} == {COW.parent.name}
    assert answer[-1].payload["asked"]["words"] == ASKED.words
    assert answer[-1].payload["made_by"]["names"] == f"{Settings.model} + {Settings.proposer}"


def test_what_else_asks_the_models_of_the_result_whatever_is_chosen_now(pool: ModelPool) -> None:
    pool, asked = ModelPool(pool.settings), replace(ASKED, compare=False, density="low", words="zebra")
    result = list(run(asked, pool))[-1].result
    assert isinstance(result, Segmentation) and Models.of(result) == asked.models
    photos = len(pool.photos)
    chosen = replace(asked, density="normal")
    assert run_to_end(what_else(chosen, result, pool))
    assert len(pool.photos) == photos and not pool.has(chosen.models)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"photo": None}, "no photo yet"),
        ({"words": "  ,"}, "no name"),
        ({"words": ",".join(map(str, range(2000)))}, "1,000"),
        ({"model": "clip-vit-z"}, "clip-vit-z"),
        ({"photo": __file__}, "picture"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(pool: ModelPool, change: dict[str, object], said: str) -> None:
    last = list(run(replace(ASKED, **change), pool))[-1]  # type: ignore[arg-type]
    assert last.result is None
    assert last.payload["kind"] == "note" and last.payload["level"] == "error"
    assert said in last.payload["message"]


def test_stopping_stops(pool: ModelPool, tmp_path: Path) -> None:
    # Another photo: what is kept of the first one would leave nothing to stop.
    Image.open(COW).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.jpg")
    steps = run(replace(ASKED, photo=str(tmp_path / "other.jpg")), pool)
    assert next(steps).payload["kind"] == "working"
    steps.close()  # type: ignore[attr-defined]
    assert list(steps) == []


def test_a_request_that_takes_too_long_is_stopped(pool: ModelPool, tmp_path: Path) -> None:
    Image.open(COW).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "other.jpg")
    hasty = ModelPool(replace(pool.settings, timeout_s=1.0))
    hasty.get(ASKED.models)
    last = list(run(replace(ASKED, photo=str(tmp_path / "other.jpg")), hasty))[-1]
    assert "more than 1 seconds" in last.payload["message"] or last.payload["kind"] == "result"


def test_any_two_arms_are_compared_and_the_same_one_is_shown_alone() -> None:
    assert replace(ASKED, compare=True).arms == ("vanilla", "adapted")
    assert replace(ASKED, compare=False).arms == ("context",)
    other = "context@clip-vit-b-16"
    assert replace(ASKED, compare=True, arm="context", against="adapted").arms == ("adapted", "context")
    assert replace(ASKED, compare=True, arm="adapted", against=other).arms == (other, "adapted")
    assert replace(ASKED, compare=False, arm=other, against="vanilla").arms == (other,)
    assert replace(ASKED, compare=True, arm="vanilla@ovseg-mini").arms == ("vanilla",)
