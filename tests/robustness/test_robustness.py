"""The short form of `python -m tests.robustness`: every figure holds."""

from __future__ import annotations

import pytest

from tests.robustness.__main__ import PARTS, figures_of
from tests.robustness.plan import SHORT
from tests.robustness.table import Figure, is_sentence, printed

# What decoders remark on damaged files, and what torch remarks on files that are no archives.
pytestmark = pytest.mark.filterwarnings("ignore")


# One part without a server and one with; the others take long.
QUICK = ("files", "load")


@pytest.mark.parametrize(
    "part", [part if part in QUICK else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]
)
def test_every_figure_holds(part: str) -> None:
    found = figures_of(part, SHORT)
    assert found
    assert all(figure.holds for figure in found), printed(part, found)


def test_a_missed_target_is_shown_with_its_remarks() -> None:
    missed = Figure.none_of(3, "crashes", ["7: boom"])
    assert not missed.holds and "FAIL" in printed("1 Files", [missed]) and "7: boom" in printed("x", [missed])
    assert not Figure.none_of(0, "crashes of nothing", []).holds
    assert not Figure.at_most("memory", 2.0, 1.0, "MB").holds


@pytest.mark.parametrize(
    ("message", "clear"),
    [
        ("'a.jpg' is no picture; choose another one.", True),
        ("There is no name to look for; type one. (request 0123abcd)", True),
        ("", False),
        ("KeyError", False),
        ("Traceback (most recent call last): File x.", False),
        ("Two lines\nare no sentence.", False),
        ("An object at 0x7f0000000000 failed.", False),
        ("no capital letter.", False),
    ],
)
def test_what_counts_as_a_sentence(message: str, clear: bool) -> None:
    assert is_sentence(message) == clear
