"""A MaskFormer made of transformers' own modules; OVSeg's has queries in CLIP's text space.

    pixels -> Swin or ResNet -> res2, res3, res4, res5 -> pixel decoder -> mask features F
                                               res5 -> queries, decoder -> q_1 ... q_N
    mask logits of query n   = mask_embed(q_n) . F
    its text-space embedding = class_embed(q_n), compared with text features by cosine (OVSeg)
    its class logits         = class_embed(q_n)                                        (MaskFormer)

The published network and transformers' agree in window padding after the norm, the mask of shifted windows,
the order of patch merging, eps and sine positions. This module changes four things of transformers': it
drops the Swin's last norm and pooling, puts DeepLab's ResNet in the place of transformers', adds the input
projection where the file has one, and takes any class head.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MaskFormerConfig, MaskFormerModel, PreTrainedConfig, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig
from transformers.models.maskformer.configuration_maskformer_swin import MaskFormerSwinConfig
from transformers.models.maskformer.modeling_maskformer import MaskformerMLPPredictionHead

from ovseg_demo.proposals.maskformer.config import DeepLabResNetConfig, MaskFormerNetworkConfig, SwinConfig
from ovseg_demo.proposals.maskformer.resnet import DeepLabResNet

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
STRIDE = 32
"""Pictures are padded to multiples of this, whatever the network's own stride."""


class MaskFormerNetwork(nn.Module):
    """The segmenter without a loss, with any class head.

    Args:
        config: its sizes.
        class_embed: module from (1, N, hidden) to (1, N, D).
    """

    def __init__(self, config: MaskFormerNetworkConfig, class_embed: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.model = MaskFormerModel(transformers_config(config))
        self.class_embed = class_embed
        self.mask_embed = MaskformerMLPPredictionHead(config.hidden, config.hidden, config.mask_dim)
        if isinstance(config.backbone, SwinConfig):
            # The norm and pooling of image classification are not used, and no file has them.
            swin = self.model.pixel_level_module.encoder.model
            swin.layernorm, swin.pooler = nn.Identity(), None
        else:
            self.model.pixel_level_module.encoder = DeepLabResNet(config.backbone)
        if config.projects_input:
            # transformers leaves the projection out where the widths are equal; the file decides.
            deepest = config.backbone.widths[-1]
            self.model.transformer_module.input_projection = nn.Conv2d(deepest, config.hidden, 1)

    def features(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) from `prepare` -> the backbone's feature maps, finest (stride 4) first."""
        maps: tuple[Tensor, ...] = self.model.pixel_level_module.encoder(pixels).feature_maps
        return maps

    def mask_features(self, features: tuple[Tensor, ...]) -> Tensor:
        """Feature maps -> (1, mask width, H / 4, W / 4)."""
        decoded: Tensor = self.model.pixel_level_module.decoder(features).last_hidden_state
        return decoded

    def queries(self, deepest: Tensor) -> Tensor:
        """The coarsest feature map -> (1, N, hidden), what each query has found."""
        found: Tensor = self.model.transformer_module(deepest).last_hidden_state
        return found

    def heads(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and mask features -> (N, D) from `class_embed` and (N, H / 4, W / 4) mask logits."""
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(queries), mask_features)
        return self.class_embed(queries)[0], masks[0]


def text_head(config: MaskFormerNetworkConfig, text_width: int, hidden: int) -> nn.Module:
    """OVSeg's class head, an MLP into the text space; transformers' is one layer to fixed classes."""
    head: nn.Module = MaskformerMLPPredictionHead(config.hidden, hidden, text_width, num_layers=2)
    return head


def transformers_config(config: MaskFormerNetworkConfig) -> MaskFormerConfig:
    """transformers' configuration of a network of these sizes."""
    decoder = MaskFormerDetrConfig(
        d_model=config.hidden,
        num_queries=config.queries,
        encoder_layers=0,
        decoder_layers=config.decoder_layers,
        decoder_attention_heads=config.decoder_heads,
        decoder_ffn_dim=config.feedforward,
    )
    with _without_backbone_warning():
        return MaskFormerConfig(
            backbone_config=_backbone_config(config.backbone),
            decoder_config=decoder,
            fpn_feature_size=config.conv_dim,
            mask_feature_size=config.mask_dim,
        )


def _backbone_config(config: SwinConfig | DeepLabResNetConfig) -> PreTrainedConfig:
    """transformers' configuration of a backbone; of a ResNet, a stand-in with the same widths."""
    if isinstance(config, SwinConfig):
        return MaskFormerSwinConfig(  # type: ignore[call-arg]
            patch_size=config.patch,
            embed_dim=config.embed_dim,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=config.window,
            mlp_ratio=config.mlp_ratio,
            out_features=[f"stage{i + 1}" for i in range(len(config.depths))],
        )
    return ResNetConfig(  # type: ignore[call-arg]
        hidden_sizes=list(config.widths),
        depths=[1] * len(config.widths),
        out_features=[f"stage{i + 1}" for i in range(len(config.widths))],
    )


@contextmanager
def _without_backbone_warning() -> Iterator[None]:
    """Silence transformers' warning that its own Swin class is not on its list of backbones."""
    logger = logging.getLogger("transformers.models.maskformer.configuration_maskformer")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def prepare(image: Tensor) -> Tensor:
    """Normalise a picture and pad it with zeros, right and below.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (1, 3, H', W') float32, H' and W' the next multiples of 32.
    """
    mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
    pixels = (image.permute(2, 0, 1).float() - mean) / std
    height, width = pixels.shape[1:]
    return functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE))[None]
