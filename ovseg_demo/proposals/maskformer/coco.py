"""MaskFormer trained by its authors on COCO's 133 panoptic classes, from transformers' weights.

Its classes are not used: it is a source of masks without OVSeg's licence. The paper mines its pairs with such
masks.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovseg_demo.proposals.base import Proposals
from ovseg_demo.proposals.maskformer.config import MaskFormerNetworkConfig, SwinConfig
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork
from ovseg_demo.proposals.maskformer.proposer import SHORT_SIDE, QueryProposer
from ovseg_demo.proposals.queries import SoftMasks
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    read_file,
    tensor_of,
)

LONG_SIDE = 1333
THRESHOLD = 0.5
SWIN_B = MaskFormerNetworkConfig(
    backbone=SwinConfig(
        embed_dim=128, patch=4, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12, mlp_ratio=4.0
    ),
    conv_dim=256,
    mask_dim=256,
    queries=100,
    hidden=256,
    decoder_layers=6,
    decoder_heads=8,
    feedforward=2048,
)
# Names that transformers changed after the file was published.
_SINCE_RENAMED = (
    (r"(_attn)\.out_proj\.", r"\1.o_proj."),
    (r"(transformer_module\.decoder\.layers\.\d+)\.(fc\d)\.", r"\1.mlp.\2."),
    (r"^class_predictor\.", "class_embed."),
    (r"^mask_embedder\.", "mask_embed."),
)
_UNUSED = re.compile(r"criterion\.empty_weight|model\.pixel_level_module\.encoder\.model\.layernorm\..*")


class CocoMaskFormerProposer(QueryProposer):
    """Class-agnostic masks; quality = certainty times the probability of any class."""

    def proposals(self, soft: SoftMasks, classes: Tensor) -> Proposals:
        """The masks whose most probable class is not "no object"."""
        probabilities = classes.softmax(dim=-1).numpy()
        something = probabilities.argmax(axis=1) < probabilities.shape[1] - 1
        masks, certain = soft.hard_masks(self.mask_threshold)
        quality = certain * (1 - probabilities[:, -1])
        return Proposals.of(masks[something], quality[something].astype(np.float32))


def load_coco_maskformer(
    name: str,
    weights: Path,
    *,
    device: torch.device,
    mask_threshold: float = THRESHOLD,
    config: MaskFormerNetworkConfig = SWIN_B,
) -> CocoMaskFormerProposer:
    """Load a MaskFormer in transformers' form as a class-agnostic proposer.

    Args:
        name: what the user chose.
        weights: `model.safetensors` of the hub.
        device: where it runs.
        mask_threshold: a pixel belongs to a mask strictly above it.
        config: another network than the Swin-B that the name stands for.

    Raises:
        CheckpointError: the file cannot be read, or is no MaskFormer of this shape.
        SettingsError: the threshold is out of its range.
    """
    network = build_coco_maskformer(_read(weights), weights, config)
    return CocoMaskFormerProposer(
        name,
        network,
        device=device,
        mask_threshold=mask_threshold,
        short_side=SHORT_SIDE,
        long_side=LONG_SIDE,
    )


def _read(path: Path) -> dict[str, Tensor]:
    """The file's weights under today's names."""
    entries = entries_of(read_file(path), path)
    weights: dict[str, Tensor] = {}
    for key in entries:
        name = key
        for pattern, today in _SINCE_RENAMED:
            name = re.sub(pattern, today, name)
        if _UNUSED.fullmatch(name):
            continue
        index = entries[key]
        if name.endswith("relative_position_index") and isinstance(index, Tensor):
            weights[name] = index
        else:
            weights[name] = tensor_of(entries, key, path)
    check_finite({k: v for k, v in weights.items() if v.is_floating_point()}, path)
    return weights


def build_coco_maskformer(
    weights: dict[str, Tensor], source: Path, config: MaskFormerNetworkConfig
) -> MaskFormerNetwork:
    """Build the network with these weights; `CheckpointError` if one does not fit."""
    classes = weights.get("class_embed.weight", torch.empty(1, 1)).shape[0]
    with torch.device("meta"):
        network = MaskFormerNetwork(config, nn.Linear(config.hidden, classes))
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    check_names_and_shapes(weights, wanted, f"{file_label(source)} is no MaskFormer of transformers")
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False)
    return network.eval()
