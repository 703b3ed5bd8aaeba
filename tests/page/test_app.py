"""What `python app.py` says when it cannot start."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app.py"


def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_MAX_NAMES", "many")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(APP), run_name="__main__")
    assert stop.value.code == "OVSEG_MAX_NAMES is 'many', but it must be a whole number."
