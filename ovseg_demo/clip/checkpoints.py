"""Load a CLIP vision transformer from a file of any known form.

The content of the file decides its form, not its name. Every form is converted to OpenAI's names, with the
mask prompts under `visual.mask_embedding` (depth, grid * grid, width):

    OpenAI                a flat dictionary, or the TorchScript archive OpenAI published
    OVSeg, CLIP only      the same, with mask prompts
    OVSeg, complete       detectron2's {"model": ...}; CLIP under "clip_adapter.clip_model."
    open_clip training    {"state_dict": ...}; every name behind "module." if several processes trained
    this project          safetensors with OpenAI's names

The shapes of the weights give the architecture. A file that does not fit exactly is refused; no code in it is
run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower
from ovseg_demo.errors import CheckpointError
from ovseg_demo.regions import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    first_keys,
    read_file,
    tensor_of,
    write_tensors,
)

PROMPTS = "visual.mask_embedding"
HEAD_WIDTH = 64
VOCABULARY_SIZE = 49408
_INSIDE_DETECTRON2 = "clip_adapter.clip_model."
_NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
_OTHER_KINDS = {
    "visual.layer1.": "a CLIP with a ResNet, which has no patches to put prompts on",
    "visual.trunk.": "an ovseg-mini without its config.json, or an open_clip model with a tower of timm",
    "vision_model.": "a CLIP of the transformers package",
    "image_encoder.": "a Segment Anything model",
    "backbone.": "a segmenter without CLIP",
}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a file of any known form.

    Returns:
        The weights as float32, without what a form wraps around their names. For a CLIP these are OpenAI's
        names, mask prompts included; whether they are a CLIP's, `build_clip` finds out.

    Raises:
        CheckpointError: the file cannot be read, is cut short or damaged, holds no CLIP, or has weights that
            are no numbers.
    """
    weights = {key: value.float() for key, value in read_entries(path).items()}
    check_finite(weights, path)
    return weights


def read_entries(path: Path) -> dict[str, Tensor]:
    """As `read_checkpoint`, in the stored number types; for converting a file to another form.

    Raises:
        CheckpointError: the file cannot be read, is cut short or damaged, or holds no CLIP.
    """
    entries = _clip_entries(read_file(path), path)
    return {key: tensor_of(entries, key, path, as_stored=True) for key in entries}


def build_clip(weights: Mapping[str, Tensor], source: Path) -> tuple[CLIP, MaskPrompts | None]:
    """Build the model that the shapes describe and put the weights in.

    Args:
        weights: from `read_checkpoint`; the model keeps these tensors.
        source: the file they are from, for messages.

    Returns:
        open_clip's model without its mask prompts, in evaluation mode, and the prompts, if the file has some.

    Raises:
        CheckpointError: weights are missing, unknown or of a shape that does not fit the others.
    """
    _refuse_other_kinds(weights, source)
    config = ClipConfig.of(weights, source)
    with torch.device("meta"):  # no memory and no random numbers: the weights replace everything
        clip = config.build()
    wanted = {key: value.shape for key, value in clip.state_dict().items()}
    given = {key: value for key, value in weights.items() if key != PROMPTS}
    check_names_and_shapes(given, wanted, f"{file_label(source)} is not the CLIP it looks like")
    clip.load_state_dict(given, assign=True)
    context = config.context_length
    clip.attn_mask = torch.full((context, context), float("-inf")).triu(1)  # causal; not part of any file
    return clip.eval(), config.prompts(weights, source)


def write_checkpoint(path: Path, image_tower: ClipImageTower, text_tower: ClipTextTower) -> None:
    """Write a model in this project's form: safetensors, OpenAI's names, the model's number type."""
    weights = {f"visual.{key}": value for key, value in image_tower.visual.state_dict().items()}
    if image_tower.prompts is not None:
        weights[PROMPTS] = image_tower.prompts.mask_embedding.detach()
    weights.update(text_tower.clip.state_dict())
    write_entries(path, weights)


def write_entries(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write entries of OpenAI's names in this project's form, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    write_tensors(path, weights, {"format": "ovseg-demo clip"})


@dataclass(frozen=True)
class ClipConfig:
    """The sizes of a CLIP vision transformer."""

    embed_dim: int
    patch: int
    grid: int
    vision_width: int
    vision_layers: int
    context_length: int
    text_width: int
    text_layers: int

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], source: Path) -> ClipConfig:
        """Read the sizes off the weights; `CheckpointError` if they are not there or make no sense."""
        telling = {
            "visual.conv1.weight": 4,
            "visual.positional_embedding": 2,
            "visual.proj": 2,
            "positional_embedding": 2,
            "text_projection": 2,
            "token_embedding.weight": 2,
        }
        if missing := [key for key in telling if key not in weights]:
            raise CheckpointError(
                f"{file_label(source)} is not a whole CLIP: it lacks {first_keys(missing)}."
            )
        for key, axes in telling.items():
            if weights[key].ndim != axes or 0 in weights[key].shape:
                raise CheckpointError(f"{file_label(source)} has {key} of shape {tuple(weights[key].shape)}.")
        patches = weights["visual.positional_embedding"].shape[0] - 1
        config = cls(
            embed_dim=weights["text_projection"].shape[1],
            patch=weights["visual.conv1.weight"].shape[-1],
            grid=isqrt(patches),
            vision_width=weights["visual.conv1.weight"].shape[0],
            vision_layers=_layers(weights, "visual.transformer."),
            context_length=weights["positional_embedding"].shape[0],
            text_width=weights["positional_embedding"].shape[1],
            text_layers=_layers(weights, "transformer."),
        )
        words = weights["token_embedding.weight"].shape[0]
        for fits, what in (
            (config.grid**2 == patches, f"{patches} patches, which make no square"),
            (config.vision_width % HEAD_WIDTH == 0, f"an image tower of width {config.vision_width}"),
            (config.text_width % HEAD_WIDTH == 0, f"a text tower of width {config.text_width}"),
            (words == VOCABULARY_SIZE, f"a vocabulary of {words} tokens"),
        ):
            if not fits:
                raise CheckpointError(f"{file_label(source)} has {what}, and no CLIP has that.")
        return config

    def build(self) -> CLIP:
        """An open_clip model of these sizes; OpenAI's activation is QuickGELU, heads are 64 wide."""
        vision = CLIPVisionCfg(
            layers=self.vision_layers,
            width=self.vision_width,
            head_width=HEAD_WIDTH,
            patch_size=self.patch,
            image_size=self.patch * self.grid,
        )
        text = CLIPTextCfg(
            context_length=self.context_length,
            vocab_size=VOCABULARY_SIZE,
            width=self.text_width,
            heads=self.text_width // HEAD_WIDTH,
            layers=self.text_layers,
        )
        return CLIP(self.embed_dim, vision, text, quick_gelu=True)

    def prompts(self, weights: Mapping[str, Tensor], source: Path) -> MaskPrompts | None:
        """The mask prompts among the weights; None if there are none or their depth is 0."""
        values = weights.get(PROMPTS)
        if values is None or values.shape[:1] == (0,):
            return None
        return prompts_of(values, self.grid**2, self.vision_width, source)


def prompts_of(values: Tensor, places: int, width: int, source: Path) -> MaskPrompts:
    """Mask prompts of a file for an image tower.

    Args:
        values: (depth, places, width), or (depth, 1, width) for the same prompt in all places.
        places: patches of the tower.
        width: of its tokens.
        source: the file, for messages.

    Raises:
        CheckpointError: the prompts do not fit the tower.
    """
    if values.ndim != 3 or values.shape[1] not in (1, places) or values.shape[2] != width:
        raise CheckpointError(
            f"{file_label(source)} has mask prompts of shape {tuple(values.shape)}; "
            f"(depth, {places}, {width}) fits the image tower."
        )
    prompts = MaskPrompts(*values.shape)
    prompts.load_state_dict({"mask_embedding": values}, assign=True)
    return prompts.eval()


def _layers(weights: Iterable[str], tower: str) -> int:
    pattern = re.compile(re.escape(tower) + r"resblocks\.(\d+)\.attn\.in_proj_weight")
    return max((int(found[1]) + 1 for key in weights if (found := pattern.fullmatch(key))), default=0)


def _clip_entries(content: object, path: Path) -> dict[str, object]:
    """Find CLIP in what a file holds and give its entries OpenAI's names."""
    entries = entries_of(content, path)
    if any(key.startswith(_INSIDE_DETECTRON2) for key in entries):
        _check_pixel_values(entries, path)
        # The other entries are the segmenter's.
        inner = {k: v for k, v in entries.items() if k.startswith(_INSIDE_DETECTRON2)}
        entries = {key.removeprefix(_INSIDE_DETECTRON2): value for key, value in inner.items()}
    entries = {key: v for key, v in entries.items() if key.rpartition(".")[2] not in _NOT_WEIGHTS}
    if not any(key.startswith("visual.") for key in entries):
        _refuse_other_kinds(entries, path)
        found = first_keys(list(entries)) or "none"
        raise CheckpointError(f"{file_label(path)} holds no CLIP image tower: its entries are {found}.")
    return entries


def _check_pixel_values(entries: Mapping[str, object], path: Path) -> None:
    """Refuse a complete OVSeg file whose crops were normalised with other values than CLIP's."""
    for name, ours in (("pixel_mean", CLIP_PIXEL_MEAN), ("pixel_std", CLIP_PIXEL_STD)):
        key = f"clip_adapter.{name}"
        if key in entries:
            theirs = tensor_of(entries, key, path).flatten()
            if theirs.shape != (3,) or not torch.allclose(theirs, torch.tensor(ours), atol=0.1, rtol=0):
                raise CheckpointError(
                    f"{file_label(path)} was trained on other pixel values than CLIP's: {key}."
                )


def _refuse_other_kinds(entries: Iterable[str], path: Path) -> None:
    for start, kind in _OTHER_KINDS.items():
        if alien := [key for key in entries if key.startswith(start)]:
            raise CheckpointError(f"{file_label(path)} is {kind}: it has {first_keys(alien)}.")
