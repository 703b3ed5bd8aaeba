"""Errors are one tree, and what they quote cannot break their sentence."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg_demo import errors
from ovseg_demo.errors import OvsegError, quoted

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_can_be_caught_as_one(error: type[Exception]) -> None:
    assert issubclass(error, OvsegError)


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_drawn_in_the_tree(error: type[Exception]) -> None:
    assert error.__name__ in (errors.__doc__ or "")
    assert error.__name__ in errors.__all__


def test_quoted_keeps_short_text_as_it_is() -> None:
    assert quoted("holiday.jpg") == "'holiday.jpg'"
    assert quoted("犬 🐕") == "'犬 🐕'"


@given(st.text(), st.integers(2, 80))
def test_quoted_is_one_short_printable_line(text: str, limit: int) -> None:
    line = quoted(text, limit)
    assert line.isprintable()
    assert len(line) <= limit + 2
    assert line.encode("utf-8")


def test_quoted_disarms_line_breaks_and_direction_marks() -> None:
    assert quoted("a\nb\u202egnp.exe") == "'a?b?gnp.exe'"
