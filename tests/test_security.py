"""SECURITY.md says what the settings say.

    python -m tests.test_security

prints its table of limits anew.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from ovseg_demo import settings
from ovseg_demo.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
NO_LIMITS = {
    "model", "proposer", "templates", "merge", "ensemble", "mask_threshold", "device", "cache_dir",
    "operator_token",
}  # fmt: skip


def limits_table() -> str:
    """Every limit with its variable, its default and what it says of itself, as Markdown."""
    (definition,) = (
        node
        for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    told: dict[str, str] = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(before.target, ast.Name) and isinstance(after.value, ast.Constant)
            told[before.target.id] = " ".join(str(after.value.value).split())
    defaults = Settings()
    limits = {item.name: getattr(defaults, item.name) for item in fields(Settings)}
    rows = [
        f"| `{ENVIRONMENT_PREFIX}{name.upper()}` | {value:,.0f} | {told[name]} |"
        for name, value in limits.items()
        if name not in NO_LIMITS
    ]
    return "\n".join(["| variable | default | what |", "|---|---|---|", *rows])


def test_the_table_of_limits_is_the_settings() -> None:
    assert limits_table() in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_what_is_no_limit_is_no_number_of_a_request() -> None:
    assert {item.name for item in fields(Settings)} >= NO_LIMITS
    for name in NO_LIMITS - {"ensemble", "mask_threshold"}:
        assert not isinstance(getattr(Settings(), name), int | float)


@pytest.mark.parametrize("part", ["## Reporting", "## What is protected", "## Limits", "## Dependencies"])
def test_it_has_its_parts(part: str) -> None:
    assert part in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(limits_table())
