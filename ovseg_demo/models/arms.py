"""Which arms a model has, and which of them are meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovseg_demo.errors import ModelError, quoted
from ovseg_demo.models.hub import exists, is_file
from ovseg_demo.models.table import ARMS, COMPARED, MODELS
from ovseg_demo.result import Arm

__all__ = ["ALL", "BOTH", "arms_of", "chosen_arms", "compared_arms", "default_arm"]

BOTH = "both"
"""Stands for the arms that a comparison shows."""
ALL = "all"
"""Stands for all arms with weights of their own."""


def arms_of(model: str | Path) -> tuple[Arm, ...]:
    """The arms of a CLIP that have weights of their own, the best last.

    Args:
        model: a name of the table, a folder that training wrote, or a file; a file is one arm, and vanilla is
            what is left of it without mask prompts.
    """
    path, entry = Path(model), MODELS.get(str(model))
    if entry is not None:
        return entry.arms
    if exists(path) and path.is_dir():
        return tuple(arm for arm in ARMS if is_file(path / f"{arm}.safetensors"))
    own = ARMS.get(path.stem)
    return (own.name,) if own is not None and own.needs else COMPARED


def default_arm(model: str | Path) -> Arm:
    """The best arm of a CLIP; of a folder without any, the one that training writes."""
    return (arms_of(model) or COMPARED)[-1]


def compared_arms(model: str | Path) -> tuple[Arm, ...]:
    """The arms of a CLIP that a comparison shows by default; only one if the model has no second."""
    arms = arms_of(model)
    return tuple(arm for arm in COMPARED if arm in arms) or arms[:1]


def chosen_arms(words: Sequence[str], model: str | Path) -> tuple[Arm, ...]:
    """The arms that a person asks for, each once, in the order asked.

    Args:
        words: names of arms, "both" or "all"; none = the best arm of the model.
        model: whose arms.

    Raises:
        ModelError: there is no such arm.
    """
    groups = {BOTH: COMPARED, ALL: arms_of(model)}
    chosen: list[Arm] = []
    for word in words or [default_arm(model)]:
        if word not in groups and word not in ARMS:
            known = ", ".join([*ARMS, *groups])
            raise ModelError(f"There is no arm called {quoted(word)}; choose from {known}.")
        chosen += groups.get(word, (word,))
    return tuple(dict.fromkeys(chosen))
