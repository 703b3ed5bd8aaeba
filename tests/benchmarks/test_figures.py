"""The arithmetic of the benchmarks: ratios, mIoU, fits, tables and charts of known measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.vocabulary import Vocabulary
from tests.benchmarks.pipeline import many_names, new_words
from tests.benchmarks.pipeline_report import chart, markdown, report, show
from tests.benchmarks.plots import Lines, draw_lines
from tests.benchmarks.readme import table, write_section
from tests.benchmarks.scaling import exponent
from tests.benchmarks.visits import RULES, Book, Subject
from train.data.truth import TruthPhoto, TruthSet


def line(seconds: float, right: int, run: str = "a") -> dict[str, Any]:
    """A photo of 100 pixels of class 0, of which so many are found and the rest is taken for class 1."""
    counts = {"0": [right, 100, right], "1": [0, 0, 100 - right]}
    times = {"propose": seconds - 1, "embed": 1.0, "total": seconds}
    return {
        "wall": times,
        "cpu": {"total": 2 * seconds},
        "stages": {"propose": seconds - 1, "embed": 1.0},
        "masks": 10,
        "counts": dict.fromkeys(RULES, counts),
        "weights": "w",
        "run": run,
    }


@pytest.fixture
def subjects() -> dict[str, Subject]:
    truth = TruthSet("small", ("dog", "cat"), ())
    photos = [TruthPhoto(Path(f"{i}.jpg"), list, lambda: np.zeros((1, 1), np.uint8)) for i in range(3)]
    found = [Subject(photo, truth, Vocabulary.of(truth.classes)) for photo in photos]
    return {subject.key: subject for subject in found}


@pytest.fixture
def book(tmp_path: Path, subjects: dict[str, Subject]) -> Book:
    written = Book(tmp_path / "book.jsonl")
    for number, key in enumerate(subjects):
        written.add(key, "ours", line(2.0, right=80))
        written.add(key, "grid16", line(20.0 + 10 * number, right=50))
    seconds = {"one_arm": 2.0, "new_words": 0.05, "seen_words": 0.01, "seen_words_1000": 0.02}
    seconds |= {"both_arms": 2.5, "names_1000": 2.1, "names_10": 2.0}
    written.add(next(iter(subjects)), "further", {"seconds": seconds, "cpu_seconds": seconds})
    return Book(tmp_path / "book.jsonl")  # as the next command finds it


def test_ratios_are_per_photo_and_their_median_counts(book: Book, subjects: dict[str, Subject]) -> None:
    ratios = report(book, subjects)["ratios"]
    assert ratios["first_run_vs_grid16"] == {"median": 15.0, "least": 10.0, "most": 20.0, "photos": 3}
    assert ratios["new_words_vs_grid16"] == {"median": 400.0, "least": 400.0, "most": 400.0, "photos": 1}
    assert ratios["new_words_vs_grid16_cpu"]["median"] == 800
    assert ratios["new_words_vs_own_first_run"] == 40
    assert ratios["both_arms"] == 1.25
    assert ratios["names_1000_vs_10"] == 1.05
    assert "first_run_vs_grid32" not in ratios


def test_accuracy_is_over_all_photos_of_a_set(book: Book, subjects: dict[str, Subject]) -> None:
    miou = report(book, subjects)["miou"]["ours_vs_grid16"]
    assert miou["small_default"] == {
        "photos": 3,
        "ours": 40.0,  # class 0: 80 of 100 pixels; class 1 is only predicted
        "theirs": 25.0,
        "difference": 15.0,
        "interval": [15.0, 15.0],
    }
    assert miou["mean_benchmark"]["difference"] == 15.0


def test_the_youngest_line_counts(book: Book, subjects: dict[str, Subject]) -> None:
    for key in subjects:
        book.add(key, "ours", line(4.0, right=80))
    assert report(book, subjects)["ratios"]["first_run_vs_grid16"]["median"] == 7.5


def test_table_and_chart_show_what_was_measured(
    book: Book, subjects: dict[str, Subject], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = report(book, subjects)
    show(figures)
    assert "first_run_vs_grid16" in capsys.readouterr().out
    assert "| `first_run_vs_grid16` | 15.0 |" in markdown(figures, "python -m this")
    chart(figures, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as opened:
        picture = np.asarray(opened.convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_a_section_of_the_readme_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- one -->\nold\n<!-- end of one -->\nafter\n")
    write_section("one", table(["what", "how many"], [["a", 1], ["b", 2]]), path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| a | 1 |" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="two"):
        write_section("two", "", path)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_fitted_exponent_is_that_of_the_cost(power: float) -> None:
    rows = [{"names": n, "cpu_s": 3 * n**power} for n in (2.0, 10.0, 50.0, 1000.0)]
    assert exponent(rows, "names") == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize("log", [False, True])
def test_a_line_chart_takes_any_range(tmp_path: Path, log: bool) -> None:
    points = {"one": [(1.0, 0.02), (1000.0, 90.0)], "two": [(5.0, 5.0)]}
    draw_lines(Lines("Title", "below", "x", "y", points, log_x=log, log_y=log), tmp_path / "lines.png")
    with Image.open(tmp_path / "lines.png") as picture:
        assert picture.size == (1200, 800)


def test_there_are_a_thousand_names_and_new_words_are_new() -> None:
    names = many_names(1000)
    assert len(set(names)) == 1000
    asked = [word for number in range(12) for word in new_words(number)]
    assert len(set(asked)) == len(asked)
    assert not set(asked) & set(names)
