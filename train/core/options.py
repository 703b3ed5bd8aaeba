"""Command-line options from a frozen dataclass: a field is an option, the docstring under it its help."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ovseg_demo.errors import OvsegError

S = TypeVar("S")

DEFAULT_DATA = Path(__file__).resolve().parents[3] / "shared"
"""Default folder of the data: `shared` beside the checkout."""


def parse_options(settings: type[S], argv: Sequence[str] | None = None, *, prog: str) -> S:
    """Read the command line into `settings`; `--help` shows every field, its meaning and its default.

    Raises:
        SettingsError: the values contradict each other.
    """
    return tyro.cli(settings, prog=f"python -m {prog}", args=argv)


def command_line(settings: Any, *, prog: str) -> str:
    """The command line of these settings without options that have their default."""
    parts = [f"python -m {prog}"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default or value is None:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            parts.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            parts.append(" ".join([flag, *(shlex.quote(str(one)) for one in value)]))
        else:
            parts.append(f"{flag} {shlex.quote(str(value))}")
    return " ".join(parts)


def run_command(main: Any, settings: type[S], *, prog: str, argv: Sequence[str] | None = None) -> None:
    """Parse, run, and turn an OvsegError into one line on stderr and exit code 2."""
    try:
        main(parse_options(settings, argv, prog=prog))
    except OvsegError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
