"""Every limit is one field, can be set from outside, and refuses nonsense with its own name."""

from __future__ import annotations

import ast
import inspect
import math
from dataclasses import fields
from pathlib import Path

import pytest

from ovseg_demo import settings
from ovseg_demo.errors import SettingsError
from ovseg_demo.settings import Settings, default_cache_dir


def test_the_defaults_are_valid() -> None:
    assert Settings() == Settings.from_environment({})


def test_every_field_says_what_it_is() -> None:
    (definition,) = (
        node
        for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    documented = set()
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(before.target, ast.Name)
            documented.add(before.target.id)
    assert documented == {field.name for field in fields(Settings)}


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_field_can_be_set_from_the_environment(name: str) -> None:
    other = {
        int: "64",
        float: "0.5" if name in ("ensemble", "mask_threshold") else "12.5",
        str: {"device": "cuda:1", "templates": "single", "merge": "benchmark"}.get(name, "other"),
    }
    default = getattr(Settings(), name)
    text = "somewhere" if isinstance(default, Path) else other[type(default)]
    changed = Settings.from_environment({f"OVSEG_{name.upper()}": str(text)})
    assert getattr(changed, name) == type(default)(text)
    assert changed != Settings()


def test_foreign_and_empty_variables_are_left_alone() -> None:
    assert Settings.from_environment({"OVSEG_MAX_NAMES": " ", "OVSEG_GOLDEN": "x", "HOME": "y"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_pixels", 0),
        ("max_pixels", 10**9),
        ("max_side_px", 8),
        ("max_names", -1),
        ("max_regions", 100_000),
        ("timeout_s", 0.0),
        ("timeout_s", math.nan),
        ("state_lifetime_s", math.inf),
        ("cache_dir", Path("~nobody-of-this-name/x")),
        ("model", " "),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("templates", "none"),
        ("merge", "best"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is") as refusal:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert str(refusal.value).endswith(".")


def test_text_where_a_number_belongs_is_refused_with_the_variable() -> None:
    with pytest.raises(SettingsError, match="OVSEG_MAX_NAMES is 'many'"):
        Settings.from_environment({"OVSEG_MAX_NAMES": "many"})


def test_the_cache_folder_follows_the_variable_and_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE_DIR", "elsewhere")
    assert default_cache_dir() == Path("elsewhere")
    monkeypatch.setenv("OVSEG_CACHE_DIR", "~/models")
    assert default_cache_dir() == Settings().cache_dir == Path.home() / "models"
    monkeypatch.delenv("OVSEG_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "base")
    monkeypatch.setattr("sys.platform", "linux")
    assert default_cache_dir() == Path("base") / "ovseg-demo"
    assert Settings(cache_dir=Path("~/x")).cache_dir == Path.home() / "x"


def test_a_machine_without_a_home_still_has_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("OVSEG_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(Path, "home", no_home)
    assert default_cache_dir().name == "ovseg-demo"
