"""What the Dockerfile copies is there, and enough to start; a real build needs an image registry."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = [
    (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
COPIED = [name for step, rest in STEPS if step == "COPY" for name in shlex.split(rest)[:-1]]
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", COPIED)
def test_what_is_copied_is_there_and_reaches_the_build(name: str) -> None:
    assert (ROOT / name).exists()
    assert IGNORED[0] == "*" and f"!{name}" in IGNORED


def test_nothing_reaches_the_build_that_is_not_copied() -> None:
    assert {line[1:] for line in IGNORED if line.startswith("!")} == set(COPIED)
    assert any(fnmatch.fnmatch("ovseg_demo/page/__pycache__", line) for line in IGNORED)


def test_it_holds_what_a_space_holds(tmp_path: Path) -> None:
    from ovseg_demo.page.space import stage

    stage(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(COPIED)


def test_it_starts_the_page_as_an_ordinary_user_with_a_python_that_is_supported() -> None:
    steps = dict(STEPS)
    python = re.fullmatch(r"python:3\.(\d+)-slim", steps["FROM"])
    assert python and 10 <= int(python[1]) <= 13
    assert steps["USER"] == "user" and steps["CMD"] == '["python", "app.py"]'
    assert "GRADIO_SERVER_NAME=0.0.0.0" in steps["ENV"] and steps["EXPOSE"] in steps["ENV"]
    assert f"127.0.0.1:{steps['EXPOSE']}/healthz" in steps["HEALTHCHECK"]
    order = [step for step, _ in STEPS]
    assert order.index("USER") < order.index("CMD")
