"""Text features of names by CLIP's zero-shot rule: fill the templates, embed, average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip.towers import TextTower
from ovseg_demo.devices import in_batches

Templates = Literal["vild", "imagenet", "single"]

TEMPLATES: dict[str, tuple[str, ...]] = {
    # The fourteen of the ViLD paper, with which every published OVSeg model was evaluated. Four of them were
    # published without a full stop.
    "vild": (
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        *(f"a photo of a {size} {{}}." for size in ("small", "medium", "large")),
        *(f"This is a photo of a {size} {{}}." for size in ("small", "medium", "large")),
        *(f"There is a {size} {{}} in the scene." for size in ("small", "medium", "large")),
    ),
    # OpenAI's eighty; open_clip has them as functions of the name.
    "imagenet": tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES),
    "single": ("a photo of a {}.",),
}
"""Sentences with a place for the name, by mode."""

SENTENCES_AT_ONCE = 256


def unit_parts(features: Tensor, parts: Sequence[int]) -> Tensor:
    """Normalise each part of features to the same length, and the whole to 1.

    Args:
        features: (n, D).
        parts: widths of the parts, D in all; a single one is plain L2 normalisation.
    """
    units: list[Tensor] = [functional.normalize(part, dim=-1) for part in features.split(list(parts), dim=-1)]
    return torch.cat(units, dim=-1) / math.sqrt(len(units))


def encode_names(
    tower: TextTower, names: Sequence[str], templates: Sequence[str], parts: Sequence[int] = ()
) -> Tensor:
    """Embed names.

    The features of a name's sentences are normalised and averaged, and the mean is normalised, in each part
    of the space separately.

    Args:
        tower: embeds sentences.
        names: at least one; blanks around a name are dropped.
        templates: sentences with "{}" where the name goes.
        parts: widths of the parts of the space; by default it is one.

    Returns:
        (C, D) float32, L2-normalised.

    Raises:
        ResourceError: the memory does not suffice for one name.
    """

    def embed(some: slice) -> Tensor:
        group = [name.strip() for name in names[some]]
        features = tower([template.format(name) for name in group for template in templates]).float()
        means = unit_parts(features, parts or features.shape[1:]).view(len(group), len(templates), -1).mean(1)
        return unit_parts(means, parts or means.shape[1:])

    at_once = max(1, SENTENCES_AT_ONCE // len(templates))
    means = in_batches(embed, len(names), at_once, what="one name", advice="choose fewer sentences per word")
    return torch.cat(list(means))
