"""Command-line options from a frozen dataclass: one field, one option, the docstring under it as the help."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ovseg_demo.errors import OvsegError

S = TypeVar("S")

DEFAULT_DATA = Path(__file__).resolve().parents[3] / "shared"
"""Where the data folders lie unless told otherwise: `shared` beside the checkout."""


def field_docs(settings: type) -> dict[str, str]:
    """The string literal under each field of a dataclass, its parents' included."""
    docs: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            match before, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                    docs[name] = " ".join(str(text).split())
    return docs


def parse_options(settings: type[S], argv: Sequence[str] | None = None, *, prog: str) -> S:
    """Read the command line into `settings`; `--help` shows every field, its meaning and its default."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}",
        description=inspect.getdoc(settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints, docs = get_type_hints(settings), field_docs(settings)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        flag, kind = f"--{field.name.replace('_', '-')}", _plain(hints[field.name])
        required = field.default is dataclasses.MISSING
        help_text = docs.get(field.name, "") + ("" if required else " (default: %(default)s)")
        shared: dict[str, Any] = {"dest": field.name, "required": required, "help": help_text}
        if not required:
            shared["default"] = field.default
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **shared)
        elif get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="*", type=get_args(kind)[0], **shared)
        elif choices := get_args(kind):  # Literal
            parser.add_argument(flag, choices=choices, **shared)
        else:
            parser.add_argument(flag, type=kind, **shared)
    values = vars(parser.parse_args(argv))
    return settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def command_line(settings: Any, *, prog: str) -> str:
    """The command that gives these settings; what equals its default is left out."""
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


def _plain(hint: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def run_command(main: Any, settings: type[S], *, prog: str, argv: Sequence[str] | None = None) -> None:
    """Parse, run, and turn an OvsegError into one line on stderr and exit code 2."""
    try:
        main(parse_options(settings, argv, prog=prog))
    except OvsegError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
