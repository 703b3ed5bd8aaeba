"""Which arms a model has, and which of them are meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ovseg_demo.errors import ModelError, quoted
from ovseg_demo.models.hub import exists, is_file
from ovseg_demo.models.open_clip_names import is_open_clip
from ovseg_demo.models.table import ARMS, COMPARED, MODELS, VANILLA
from ovseg_demo.result import Arm

__all__ = ["ALL", "BOTH", "arms_of", "chosen_arms", "compared_arms", "default_arm", "own_arms"]

BOTH = "both"
"""Stands for the arms that a comparison shows."""
ALL = "all"
"""Stands for all arms of a model."""


def arms_of(model: str | Path) -> tuple[Arm, ...]:
    """All arms of a CLIP, in the order of the table.

    Args:
        model: a name of the table, a folder that training wrote, or a file; a file is one arm, and vanilla is
            what is left of it without mask prompts.
    """
    own = own_arms(model)
    entry = MODELS.get(str(model))
    if entry is not None:
        return entry.arms
    return tuple(arm for arm in ARMS if arm in own or ARMS[arm].otherwise in own)


def own_arms(model: str | Path) -> tuple[Arm, ...]:
    """The arms that have weights of their own, the best last; `model` as in `arms_of`."""
    path, entry = Path(model), MODELS.get(str(model))
    if entry is not None:
        return entry.own_arms
    if is_open_clip(model):
        return (VANILLA,)
    if exists(path) and path.is_dir():
        return tuple(arm for arm in ARMS if is_file(path / f"{arm}.safetensors"))
    named = ARMS.get(path.stem)
    return (named.name,) if named is not None and named.needs else COMPARED


def default_arm(model: str | Path) -> Arm:
    """The best arm of a CLIP that was made for it; of a folder without any, the one that training writes."""
    return (own_arms(model) or COMPARED)[-1]


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
