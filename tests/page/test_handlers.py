"""A request is answered step by step, and whatever goes wrong is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ovseg_demo.page.handlers import Request, Shown, run
from ovseg_demo.page.pool import ModelPool
from ovseg_demo.page.words import what_else
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
)


@pytest.fixture(scope="module")
def answer(pool: ModelPool) -> list[Shown]:
    return list(run(ASKED, pool))


def test_the_photo_is_shown_first_and_the_result_last(answer: list[Shown]) -> None:
    assert answer[0].payload["kind"] == "working" and answer[0].payload["photo"]["width"] == 1024
    assert [step.payload["kind"] for step in answer[1:-1]] == ["working"] * (len(answer) - 2)
    assert answer[-1].payload["kind"] == "result"


def test_progress_never_goes_back(answer: list[Shown]) -> None:
    fractions = [step.payload["fraction"] for step in answer[:-1]]
    assert fractions == sorted(fractions)


def test_the_result_has_both_arms_and_says_how_long_it_took(answer: list[Shown]) -> None:
    assert isinstance(answer[-1].result, Comparison)
    assert set(answer[-1].payload["arms"]) == {"adapted", "vanilla"}
    assert "Done in" in answer[-1].payload["message"]


def test_one_arm_is_enough_if_no_comparison_is_wanted(pool: ModelPool) -> None:
    last = list(run(replace(ASKED, compare=False), pool))[-1]
    assert isinstance(last.result, Segmentation) and set(last.payload["arms"]) == {"adapted"}


def test_other_words_on_the_same_photo_are_scored_without_looking_again(
    pool: ModelPool, answer: list[Shown]
) -> None:
    last = list(run(replace(ASKED, words="cow, meadow"), pool))[-1]
    assert "Only the words were scored again" in last.payload["message"]


def test_what_else_names_things_that_were_not_typed(pool: ModelPool, answer: list[Shown]) -> None:
    result = list(run(replace(ASKED, words="zebra"), pool))[-1].result
    assert result is not None
    names = what_else(result, pool, ASKED.model, ASKED.proposer)
    assert names and "zebra" not in names


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
    from PIL import Image

    # Another photo: what is kept of the first one would leave nothing to stop.
    Image.open(COW).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.jpg")
    steps = run(replace(ASKED, photo=str(tmp_path / "other.jpg")), pool)
    assert next(steps).payload["kind"] == "working"
    steps.close()  # type: ignore[attr-defined]
    assert list(steps) == []


def test_a_request_that_takes_too_long_is_stopped(pool: ModelPool, tmp_path: Path) -> None:
    from PIL import Image

    Image.open(COW).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "other.jpg")
    hasty = ModelPool(replace(pool.settings, timeout_s=1.0))
    hasty.get(ASKED.model, ASKED.proposer)
    last = list(run(replace(ASKED, photo=str(tmp_path / "other.jpg")), hasty))[-1]
    assert "more than 1 seconds" in last.payload["message"] or last.payload["kind"] == "result"
