"""Options come from dataclasses; every command that a page shows is understood."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from ovseg_demo.errors import SettingsError
from train.core.options import command_line, parse_options, run_command

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "train/README.md", "checkpoints/ovseg-mini/README.md")
SHELL_VARIABLE = re.compile(r"^ {4}([A-Z]+)=\"(.*)\"$", re.MULTILINE)


@dataclass(frozen=True)
class Base:
    """What commands share."""

    pairs: tuple[Path, ...]
    """Folders of pairs."""
    rate: float | None = None
    """Highest learning rate."""


@dataclass(frozen=True)
class Options(Base):
    """Do something."""

    max_side_px: int = 640
    """Longer side in pixels."""
    merge: Literal["default", "benchmark"] = "default"
    """How masks are merged."""
    with_vanilla: bool = True
    """Also put in the vanilla weights."""
    title: str = ""
    """Title of the card."""

    def __post_init__(self) -> None:
        if self.max_side_px < 1:
            raise SettingsError(f"--max-side-px must be above 0, not {self.max_side_px}.")


def commands() -> list[tuple[str, list[str]]]:
    """(module, arguments) of each indented `python -m train.NAME` line of the pages."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
        variables = dict(SHELL_VARIABLE.findall(text))
        for line in re.findall(r"^ {4}python -m (train\..*)$", text, re.MULTILINE):
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            module, *arguments = shlex.split(line, comments=True)
            found.append((module, [argument for argument in arguments if argument != "..."]))
    return found


def settings_of(module: str) -> type[Any]:
    """The dataclass that a command hands to `run_command`."""
    imported = importlib.import_module(module)
    tree = ast.parse(Path(str(imported.__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_command":
            assert isinstance(node.args[1], ast.Name)
            settings: type[Any] = getattr(imported, node.args[1].id)
            return settings
    raise AssertionError(f"{module} does not call run_command")


@pytest.mark.parametrize(("module", "arguments"), commands(), ids=lambda value: " ".join([*value])[:60])
def test_every_command_of_the_pages_is_understood(module: str, arguments: list[str]) -> None:
    if module == "train.ablations":
        arguments = ["--name", *arguments]
    settings = parse_options(settings_of(module), arguments, prog=module)
    for argument in (argument for argument in arguments if argument.startswith("--")):
        name = argument[2:].partition("=")[0].removeprefix("no-").replace("-", "_")
        assert hasattr(settings, {"from": "source"}.get(name, name))  # no attribute can be called "from"


def test_the_pages_show_commands() -> None:
    assert len(commands()) > 30


def test_options_become_fields_and_fields_options() -> None:
    given = ["--pairs", "a", "b c", "--rate", "1e-3", "--merge", "benchmark", "--no-with-vanilla"]
    options = parse_options(Options, given, prog="train.x")
    assert options == Options((Path("a"), Path("b c")), 1e-3, merge="benchmark", with_vanilla=False)
    line = command_line(options, prog="train.x")
    assert line == "python -m train.x --pairs a 'b c' --rate 0.001 --merge benchmark --no-with-vanilla"
    assert parse_options(Options, shlex.split(line)[3:], prog="train.x") == options


def test_an_equals_sign_may_join_name_and_value() -> None:
    assert parse_options(Options, ["--pairs", "a", "--title=A b"], prog="train.x").title == "A b"


def test_the_help_tells_every_option_its_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_options(Options, ["--help"], prog="train.x")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for text in ("python -m train.x", "Do something.", "--max-side-px", "Longer side in pixels", "640"):
        assert text in shown
    for text in ("{default,benchmark}", "--no-with-vanilla", "Folders of pairs", "Highest learning rate"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--pairs"),
        (["--pairs", "a", "--rat", "1"], "--rat"),
        (["--pairs", "a", "--rate", "fast"], "fast"),
        (["--pairs", "a", "--merge", "none"], "none"),
        (["--pairs", "a", "--max-side-px", "0"], "train.x: --max-side-px must be above 0, not 0."),
    ],
    ids=["missing", "unknown", "no number", "no choice", "out of range"],
)
def test_wrong_options_stop_the_command(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(lambda options: None, Options, prog="train.x", argv=arguments)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
