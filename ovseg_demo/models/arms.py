"""Which arms a model has, and which of them are meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from ovseg_demo.errors import ModelError, UnknownModelError, quoted
from ovseg_demo.models.hub import exists, is_file
from ovseg_demo.models.open_clip_names import is_open_clip
from ovseg_demo.models.table import ARMS, COMPARED, MODELS, VANILLA
from ovseg_demo.models.unpinned import UNPINNED
from ovseg_demo.result import Arm

__all__ = [
    "ALL",
    "BOTH",
    "OF_MODEL",
    "TAUGHT",
    "YOURS",
    "arm_of",
    "arms_of",
    "check_listed",
    "chosen_arms",
    "compared_arms",
    "default_arm",
    "is_mini",
    "listed_arms",
    "listed_names",
    "own_arms",
    "split_arm",
]

BOTH = "both"
"""Stands for the arms that a comparison shows."""
OF_MODEL = "@"
"""Parts an arm from the model it belongs to, where that is another than the request's."""
TAUGHT: Arm = "adapted"
"""The arm whose mask prompts a person may teach (`ovseg_demo.teaching`)."""
YOURS: Arm = "yours"
"""That arm with a person's own prompts; it belongs to one request."""
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
    if is_mini(Path(model)):  # what others get without training, it has only where it was trained
        return own
    return tuple(arm for arm in ARMS if arm in own or ARMS[arm].otherwise in own)


def is_mini(path: Path) -> bool:
    """Whether a folder, or the folder of a safetensors file, holds an ovseg-mini."""
    if not exists(path) or (path.suffix != ".safetensors" and not path.is_dir()):
        return False
    config = (path if path.is_dir() else path.parent) / "config.json"
    try:
        return bool(json.loads(config.read_text("utf-8"))["architecture"] == "ovseg-mini")
    except (OSError, ValueError, KeyError, TypeError):
        return False


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
        words: names of arms, "both" or "all", each with "@MODEL" behind it if another model's are meant;
            none = the best arm of the model.
        model: whose arms.

    Raises:
        ModelError: there is no such arm.
    """
    chosen: list[Arm] = []
    for word in words or [default_arm(model)]:
        name, other = split_arm(word, model)
        groups = {BOTH: COMPARED, ALL: arms_of(other)}
        if name not in groups and name not in ARMS:
            known = ", ".join([*ARMS, *groups])
            message = (
                f"There is no arm called {quoted(name)}; choose from {known}, of another model as "
                f"ARM{OF_MODEL}MODEL."
            )
            raise ModelError(message, public=message)
        chosen += [arm_of(one, other, model) for one in groups.get(name, (name,))]
    return tuple(dict.fromkeys(chosen))


def split_arm(arm: Arm, model: str | Path) -> tuple[Arm, str]:
    """What an arm is and which model's.

    Args:
        arm: its name, with "@MODEL" behind it if it is another model's.
        model: the model that is meant otherwise.

    Returns:
        The arm's own name, and the model.
    """
    name, _, other = arm.partition(OF_MODEL)
    return name, other or str(model)


def arm_of(name: Arm, model: str | Path, usual: str | Path) -> Arm:
    """The full name of a model's arm: the model is left out where it is the usual one."""
    return name if str(model) == str(usual) else f"{name}{OF_MODEL}{model}"


def listed_names(kind: str) -> tuple[str, ...]:
    """The models of a kind, "clip" or "proposer", that lists show."""
    pinned = tuple(entry.name for entry in MODELS.values() if entry.kind == kind)
    return pinned + tuple(entry.name for entry in UNPINNED.values() if entry.kind == kind)


def listed_arms() -> tuple[Arm, ...]:
    """Every arm of every CLIP that lists show, by its full name."""
    return tuple(arm_of(arm, name, "") for name in listed_names("clip") for arm in arms_of(name))


def check_listed(arms: Sequence[Arm], *own: str) -> None:
    """Hold visitors of a server to the models that its lists show.

    Args:
        arms: those asked for.
        own: further models, which the server was started with or Gradio has checked.

    Raises:
        UnknownModelError: an arm is of another model; the nearest names are offered.
    """
    known = listed_names("clip")
    for arm in arms:
        _, model = split_arm(arm, own[0])
        if model not in known and model not in own:
            close = difflib.get_close_matches(model, known, n=3, cutoff=0.5) or known[:3]
            message = f"This server has no model {quoted(model)}; the nearest are {', '.join(close)}."
            raise UnknownModelError(message, public=message)
