"""Load the segmenter of a complete OVSeg file, every key checked."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.config import CLASS_HEAD, MaskFormerNetworkConfig
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX, NO_OBJECT, UNUSED, places
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork, text_head
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    first_keys,
    read_file,
    tensor_of,
)

_INDEX = "relative_position_index"
_OTHER_BACKBONES = ("backbone.bottom_up.", "backbone.stages.", "backbone.body.")
_COUNTERS = "num_batches_tracked"
"""Of batch norms; some files have them, and they are of no use after training."""


def load_segmenter(path: Path, *, decoder_heads: int | None = None) -> tuple[MaskFormerNetwork, Tensor]:
    """Read the segmenter of a complete OVSeg file.

    Args:
        path: the file, in detectron2's form.
        decoder_heads: see `MaskFormerNetworkConfig.of`.

    Returns:
        The network in evaluation mode on the CPU, and the (D,) no-object feature, L2-normalised.

    Raises:
        CheckpointError: the file cannot be read, holds a CLIP alone or another segmenter, lacks a weight, has
            one that is unknown, or one that does not fit.
    """
    weights = read_segmenter(path)
    return build_segmenter(weights, path, decoder_heads=decoder_heads)


def read_segmenter(path: Path) -> dict[str, Tensor]:
    """The entries of a complete OVSeg file that are the segmenter's, float32 but for the position index."""
    entries = entries_of(read_file(path), path)
    own = {key: value for key, value in entries.items() if not key.startswith(CLIP_PREFIX)}
    if alien := [key for key in own if key.startswith(_OTHER_BACKBONES)]:
        raise CheckpointError(
            f"{file_label(path)} has another segmenter than MaskFormer with a Swin or a ResNet, the two that "
            f"run here: {first_keys(alien)}."
        )
    if not any(key.startswith(("backbone.", "sem_seg_head.")) for key in own):
        kind = "a CLIP alone" if _is_clip(entries) else "no segmenter"
        raise CheckpointError(
            f"{file_label(path)} holds {kind}, without the backbone and sem_seg_head of a complete OVSeg "
            "file; give the complete file, or another proposer."
        )
    weights = {key: tensor_of(own, key, path) for key in own if not key.endswith((_INDEX, _COUNTERS))}
    check_finite(weights, path)
    places = {key: value for key, value in own.items() if key.endswith(_INDEX) and isinstance(value, Tensor)}
    return weights | places


def build_segmenter(
    weights: Mapping[str, Tensor], source: Path, *, decoder_heads: int | None = None
) -> tuple[MaskFormerNetwork, Tensor]:
    """Build the network that the shapes describe and put the weights in; as `load_segmenter`."""
    config = MaskFormerNetworkConfig.of(weights, source, decoder_heads)
    class_hidden, text_width = (weights[CLASS_HEAD.format(layer)].shape[0] for layer in (0, 1))
    with torch.device("meta"):  # no memory and no random numbers: the weights replace everything
        network = MaskFormerNetwork(config, text_head(config, text_width, class_hidden))
    wanted = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith(_COUNTERS)
    }
    where = places(wanted, config.stages)
    shapes = {place.key: _whole(wanted[name], place.part) for name, place in where.items()}
    used = {key: value for key, value in weights.items() if key not in UNUSED}
    check_names_and_shapes(
        used,
        {**shapes, NO_OBJECT: (1, text_width)},
        f"{file_label(source)} is not the segmenter it looks like",
    )
    given = {name: _part(weights[place.key], place.part) for name, place in where.items()}
    for name, value in given.items():
        if name.endswith(_INDEX):
            _check_index(value, where[name].key, source)
    no_object = weights[NO_OBJECT]
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith(_COUNTERS)}
    network.load_state_dict(given | counters, assign=True)
    network.requires_grad_(False)
    return network.eval(), functional.normalize(no_object, dim=-1)[0]


def _is_clip(entries: Mapping[str, object]) -> bool:
    return any(key.startswith(("visual.", CLIP_PREFIX + "visual.")) for key in entries)


def _whole(shape: tuple[int, ...], part: int | None) -> tuple[int, ...]:
    """The shape in the file of a weight that is all of an entry, or one third of its rows."""
    return shape if part is None else (3 * shape[0], *shape[1:])


def _part(weight: Tensor, part: int | None) -> Tensor:
    """All of a weight, or one third of its rows."""
    if part is None:
        return weight
    rows = weight.shape[0] // 3 if weight.ndim else 0
    return weight[part * rows : (part + 1) * rows].contiguous()


def _check_index(index: Tensor, key: str, source: Path) -> None:
    """Refuse an index of relative positions other than Swin's."""
    window = isqrt(index.shape[0])
    rows = torch.arange(window).repeat_interleave(window)
    columns = torch.arange(window).repeat(window)
    width = 2 * window - 1
    right = (rows[:, None] - rows + window - 1) * width + (columns[:, None] - columns + window - 1)
    if not torch.equal(index, right):
        raise CheckpointError(f"{file_label(source)} has {key} in an order that is not Swin's.")
