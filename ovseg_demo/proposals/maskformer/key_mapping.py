"""Map the weight names of transformers' MaskFormer to those of a published OVSeg file.

The published names are detectron2's. Two more things differ: the file stores the three projections of an
attention in one tensor, and counts the stages of the pixel decoder in reverse. A ResNet has timm's names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

UNUSED = {
    "criterion.empty_weight": "class weights of the training loss",
    "clip_adapter.pixel_mean": "of the crops; the loader of CLIP checks it",
    "clip_adapter.pixel_std": "of the crops; the loader of CLIP checks it",
}
"""Entries of a complete file that the segmenter does not use, and what they are."""

CLIP_PREFIX = "clip_adapter.clip_model."
"""In front of the names of CLIP, which `ovseg_demo.clip` reads."""

NO_OBJECT = "clip_adapter.non_object_embedding"


@dataclass(frozen=True)
class Place:
    """A whole entry of the file, or one of the three equal parts of its rows."""

    key: str
    part: int | None = None
    """0 = query, 1 = key, 2 = value."""


_SWIN = r"model\.pixel_level_module\.encoder\."
_BLOCK = _SWIN + r"model\.encoder\.layers\.(\d+)\.blocks\.(\d+)\."
_RESNET = r"model\.pixel_level_module\.encoder\.resnet\."
_STEM_CONVS = {"conv1.0": "conv1", "conv1.3": "conv2", "conv1.6": "conv3"}
_STEM_NORMS = {"conv1.1": "conv1", "conv1.4": "conv2", "bn1": "conv3"}
_FPN = r"model\.pixel_level_module\.decoder\.fpn\."
_QUERIES = r"model\.transformer_module\."
_LAYER = _QUERIES + r"decoder\.layers\.(\d+)\."
_THREE = {"query": 0, "key": 1, "value": 2, "q": 0, "k": 1, "v": 2}
_ATTENTIONS = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}
_BLOCK_PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_LAYER_PARTS = {
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm2",
    "final_layer_norm": "norm3",
    "mlp.fc1": "linear1",
    "mlp.fc2": "linear2",
}
_HEAD = "sem_seg_head."
_DECODER = "sem_seg_head.predictor.transformer.decoder."


def _one_of(names: Iterable[str]) -> str:
    return f"({'|'.join(re.escape(name) for name in names)})"


def _rules(stages: int) -> list[tuple[str, Callable[[re.Match[str]], Place]]]:
    """Patterns of transformers' names, and the place that each stands for."""

    def level(found: re.Match[str]) -> int:
        return stages - 1 - int(found[1])

    return [
        (_SWIN + r"model\.embeddings\.patch_embeddings\.projection(.*)", _to("backbone.patch_embed.proj{0}")),
        (_SWIN + r"model\.embeddings\.norm(.*)", _to("backbone.patch_embed.norm{0}")),
        (
            _BLOCK + r"attention\.self\.(query|key|value)(.*)",
            lambda m: Place(f"backbone.layers.{m[1]}.blocks.{m[2]}.attn.qkv{m[4]}", _THREE[m[3]]),
        ),
        (_BLOCK + r"attention\.self\.(relative.*)", _to("backbone.layers.{0}.blocks.{1}.attn.{2}")),
        (
            _BLOCK + _one_of(_BLOCK_PARTS) + "(.*)",
            lambda m: Place(f"backbone.layers.{m[1]}.blocks.{m[2]}.{_BLOCK_PARTS[m[3]]}{m[4]}"),
        ),
        (_SWIN + r"model\.encoder\.(layers\.\d+\.downsample\..*)", _to("backbone.{0}")),
        (_SWIN + r"hidden_states_norms\.(\d+)(.*)", _to("backbone.norm{0}{1}")),
        (
            _RESNET + _one_of(_STEM_CONVS) + r"\.weight",
            lambda m: Place(f"backbone.stem.{_STEM_CONVS[m[1]]}.weight"),
        ),
        (
            _RESNET + _one_of(_STEM_NORMS) + r"\.(.*)",
            lambda m: Place(f"backbone.stem.{_STEM_NORMS[m[1]]}.norm.{m[2]}"),
        ),
        (
            _RESNET + r"layer(\d)\.(\d+)\.conv(\d)\.weight",
            lambda m: Place(f"backbone.res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.weight"),
        ),
        (
            _RESNET + r"layer(\d)\.(\d+)\.bn(\d)\.(.*)",
            lambda m: Place(f"backbone.res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm.{m[4]}"),
        ),
        (
            _RESNET + r"layer(\d)\.(\d+)\.downsample\.0\.weight",
            lambda m: Place(f"backbone.res{int(m[1]) + 1}.{m[2]}.shortcut.weight"),
        ),
        (
            _RESNET + r"layer(\d)\.(\d+)\.downsample\.1\.(.*)",
            lambda m: Place(f"backbone.res{int(m[1]) + 1}.{m[2]}.shortcut.norm.{m[3]}"),
        ),
        (_FPN + r"stem\.0(.*)", _to(f"{_HEAD}pixel_decoder.layer_{stages}{{0}}")),
        (_FPN + r"stem\.1(.*)", _to(f"{_HEAD}pixel_decoder.layer_{stages}.norm{{0}}")),
        (
            _FPN + r"layers\.(\d+)\.proj\.0(.*)",
            lambda m: Place(f"{_HEAD}pixel_decoder.adapter_{level(m)}{m[2]}"),
        ),
        (
            _FPN + r"layers\.(\d+)\.proj\.1(.*)",
            lambda m: Place(f"{_HEAD}pixel_decoder.adapter_{level(m)}.norm{m[2]}"),
        ),
        (
            _FPN + r"layers\.(\d+)\.block\.0(.*)",
            lambda m: Place(f"{_HEAD}pixel_decoder.layer_{level(m)}{m[2]}"),
        ),
        (
            _FPN + r"layers\.(\d+)\.block\.1(.*)",
            lambda m: Place(f"{_HEAD}pixel_decoder.layer_{level(m)}.norm{m[2]}"),
        ),
        (
            r"model\.pixel_level_module\.decoder\.mask_projection(.*)",
            _to(f"{_HEAD}pixel_decoder.mask_features{{0}}"),
        ),
        (_QUERIES + r"queries_embedder(.*)", _to(f"{_HEAD}predictor.query_embed{{0}}")),
        (_QUERIES + r"input_projection(.*)", _to(f"{_HEAD}predictor.input_proj{{0}}")),
        (
            _LAYER + _one_of(_ATTENTIONS) + r"\.([qkv])_proj\.(.*)",
            lambda m: Place(f"{_DECODER}layers.{m[1]}.{_ATTENTIONS[m[2]]}.in_proj_{m[4]}", _THREE[m[3]]),
        ),
        (
            _LAYER + _one_of(_ATTENTIONS) + r"\.o_proj(.*)",
            lambda m: Place(f"{_DECODER}layers.{m[1]}.{_ATTENTIONS[m[2]]}.out_proj{m[3]}"),
        ),
        (
            _LAYER + _one_of(_LAYER_PARTS) + "(.*)",
            lambda m: Place(f"{_DECODER}layers.{m[1]}.{_LAYER_PARTS[m[2]]}{m[3]}"),
        ),
        (_QUERIES + r"decoder\.layernorm(.*)", _to(f"{_DECODER}norm{{0}}")),
        (r"(class_embed|mask_embed)\.(\d+)\.0(.*)", _to(f"{_HEAD}predictor.{{0}}.layers.{{1}}{{2}}")),
    ]


def _to(template: str) -> Callable[[re.Match[str]], Place]:
    return lambda found: Place(template.format(*found.groups()))


def places(ours: Iterable[str], stages: int) -> dict[str, Place]:
    """For each weight of the network, its place in the published file.

    Args:
        ours: names in `network.MaskFormerNetwork`.
        stages: of the backbone.

    Raises:
        KeyError: no rule matches a name; transformers has renamed its weights.
    """
    rules = [(re.compile(pattern), place) for pattern, place in _rules(stages)]
    found = {}
    for name in ours:
        matches = [(match, place) for pattern, place in rules if (match := pattern.fullmatch(name))]
        if not matches:
            raise KeyError(name)
        match, place = matches[0]
        found[name] = place(match)
    return found
