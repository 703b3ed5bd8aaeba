"""Convert a CLIP of the transformers library to open_clip's configuration and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.packages import needs_transformers

_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
_TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}


def open_clip_config(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """open_clip's configuration of the same architecture.

    Args:
        config: content of config.json.
        source: where it is from, for messages.

    Raises:
        CheckpointError: it is no CLIP with a vision transformer that open_clip could build.
    """
    # What is not in the file has the library's own defaults.
    with needs_transformers(source):
        from transformers import CLIPConfig
    if config.get("model_type") != "clip":
        kind = config.get("model_type") or "something unnamed"
        raise CheckpointError(f"{source} is no CLIP: its config.json is of {kind}.")
    both: Any = CLIPConfig.from_dict(dict(config))
    image, text = both.vision_config, both.text_config
    activation = image.hidden_act
    if activation not in ("quick_gelu", "gelu") or text.hidden_act != activation:
        raise CheckpointError(
            f"{source} has the activations {activation} and {text.hidden_act}; CLIP's are gelu or quick_gelu."
        )
    return {
        "embed_dim": both.projection_dim,
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "width": image.hidden_size,
            "layers": image.num_hidden_layers,
            "head_width": image.hidden_size // image.num_attention_heads,
            "mlp_ratio": image.intermediate_size / image.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }


def open_clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under open_clip's names, query, key and value of each block in one."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith("position_ids"):
            continue
        if name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = value.T.contiguous()
            continue
        if match := re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            block, part, kind = match.groups()
            if part == "q":
                parts = [weights[f"{block}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
                found[_renamed(f"{block}.attn.in_proj_{kind}")] = torch.cat(parts)
            continue
        found[_renamed(name)] = value
    return found


def _renamed(name: str) -> str:
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return name
