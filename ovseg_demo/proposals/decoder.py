"""SAM's mask decoder for many prompts on one image, without the repeated work.

The published decoder copies the image embedding for every prompt and projects each copy. This one calls the
same submodules and shares or avoids the work on the image (see cross_attention.py); results differ by
rounding only. Masks are computed only for prompts of sufficient predicted quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.cross_attention import (
    image_to_token_attention,
    shared_image_to_token_attention,
    split_heads,
    token_to_image_attention,
    token_to_shared_image_attention,
)
from ovseg_demo.proposals.mask_upscaling import MaskUpscaling, norm_parameters


@dataclass(frozen=True)
class ImageTokens:
    """One image as the decoder sees it; N = height * width tokens of C channels, row-major.

    Attributes:
        height, width: the token grid.
        tokens: (1, N, C) embedding plus the "no mask prompt" vector.
        positional: (1, N, C) positional encoding.
        first_keys, first_values: (1, H, N, c) for the first layer's token-to-image attention.
        first_queries: (1, N, H * c) for its image-to-token attention.
    """

    height: int
    width: int
    tokens: Tensor
    positional: Tensor
    first_keys: Tensor
    first_values: Tensor
    first_queries: Tensor


@dataclass(frozen=True)
class Decoded:
    """A batch of B decoded prompts, before masks are computed.

    Attributes:
        quality: (B, M) float32, predicted IoU of the masks: part, object, whole in no fixed order (M = 3); in
            front of them, where it is asked for, the mask that is meant for prompts of several parts (M = 4).
        mask_vectors: (B, M, C / 8) float32, the vectors that select the masks from the upscaled image.
        image_tokens: (B, N, C), the image as changed by each prompt.
        height, width: its token grid.
    """

    quality: Tensor
    mask_vectors: Tensor
    image_tokens: Tensor
    height: int
    width: int


class PointDecoder:
    """Batched decoding of single points with the weights of a SAM or MobileSAM.

    Args:
        prompt_encoder: the package's PromptEncoder.
        mask_decoder: the package's MaskDecoder.
        dtype: number type of tensors with N image tokens; prompt tokens stay in float32.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any, dtype: torch.dtype) -> None:
        self._prompts = prompt_encoder
        self._decoder = mask_decoder
        self._layers = list(mask_decoder.transformer.layers)
        self.dtype = dtype
        self._norms = [norm_parameters(layer.norm4, dtype) for layer in self._layers]
        self._upscaling = MaskUpscaling(mask_decoder.output_upscaling, dtype)

    def prepare(self, embedding: Tensor) -> ImageTokens:
        """Project the image once.

        Args:
            embedding: (1, C, h, w) from the image encoder; h and w may be less than the encoder's full grid
                when there is no padding.
        """
        _, channels, height, width = embedding.shape
        bare = self._prompts.no_mask_embed.weight.reshape(1, channels, 1, 1)
        tokens = (embedding.float() + bare).flatten(2).transpose(1, 2)
        positional = self._prompts.get_dense_pe()[..., :height, :width].flatten(2).transpose(1, 2)
        located = tokens + positional
        to_image = self._layers[0].cross_attn_token_to_image
        to_tokens = self._layers[0].cross_attn_image_to_token
        return ImageTokens(
            height,
            width,
            tokens=self._stored(tokens),
            positional=self._stored(positional),
            first_keys=self._stored(split_heads(to_image.k_proj(located), to_image.num_heads)),
            first_values=self._stored(split_heads(to_image.v_proj(tokens), to_image.num_heads)),
            first_queries=self._stored(to_tokens.q_proj(located)),
        )

    def decode(self, image: ImageTokens, points: Tensor) -> Decoded:
        """Run the two-way transformer for B prompts.

        Args:
            points: (B, 2) float32 x, y in pixels of the encoder's input.
        """
        labels = torch.ones(len(points), 1, device=points.device)
        sparse, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        return self._decode(image, sparse, first_mask=1)

    def decode_prompt(
        self, image: ImageTokens, points: Tensor, positive: Tensor, box: Tensor | None
    ) -> Decoded:
        """The same for one prompt of several points, a box, or both.

        Args:
            points: (N, 2) float32 x, y in pixels of the encoder's input; N may be 0 beside a box.
            positive: (N,) bool, whether the region holds the point.
            box: (4,) float32 left, top, right, bottom; None = no box.

        Returns:
            B = 1 and four masks: SAM's mask for prompts without doubt is the first one.
        """
        pair = (points[None], positive[None].float()) if len(points) else None
        boxes = None if box is None else box[None]
        sparse, _ = self._prompts(points=pair, boxes=boxes, masks=None)
        return self._decode(image, sparse, first_mask=0)

    def _decode(self, image: ImageTokens, sparse: Tensor, *, first_mask: int) -> Decoded:
        """From (B, T, C) prompt tokens to qualities and mask vectors, from one of SAM's four masks on."""
        fixed = torch.cat([self._decoder.iou_token.weight, self._decoder.mask_tokens.weight])
        prompt = torch.cat([fixed.expand(len(sparse), -1, -1), sparse], dim=1)

        tokens, content = self._first_layer(image, prompt)
        for level in range(1, len(self._layers)):
            tokens, content = self._later_layer(level, image, prompt, tokens, content)
        final = self._decoder.transformer
        located = content + image.positional
        seen = token_to_image_attention(final.final_attn_token_to_image, tokens + prompt, located, content)
        tokens = final.norm_final_attn(tokens + seen)

        quality = self._decoder.iou_prediction_head(tokens[:, 0])
        # Mask 0 is for several points at once; masks 1 to 3 are for a single point.
        heads = list(self._decoder.output_hypernetworks_mlps)
        vectors = [head(tokens[:, 1 + i]) for i, head in enumerate(heads) if i >= first_mask]
        stacked = torch.stack(vectors, dim=1)
        return Decoded(quality[:, first_mask:], stacked, content, image.height, image.width)

    def masks(self, decoded: Decoded, wanted: Tensor) -> Tensor:
        """Compute some of the masks.

        Args:
            wanted: (B, M) bool.

        Returns:
            (K, 4 * height, 4 * width) float32 logits of the K wanted masks, those of a prompt together.
        """
        return self._upscaling.masks(decoded, wanted)

    def edge_masks(self, decoded: Decoded, wanted: Tensor) -> Tensor:
        """The same with all cells along the masks' edges only, which on a CPU takes half of the time."""
        if decoded.image_tokens.device.type != "cpu":
            return self.masks(decoded, wanted)
        return self._upscaling.edge_masks(decoded, wanted)

    def _first_layer(self, image: ImageTokens, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """The layer in which all prompts see the same image; it ends with (B, T, C) and (B, N, C)."""
        layer = self._layers[0]
        tokens = layer.norm1(layer.self_attn(q=prompt, k=prompt, v=prompt))
        attend = layer.cross_attn_token_to_image
        seen = token_to_shared_image_attention(attend, tokens + prompt, image.first_keys, image.first_values)
        tokens = _rest_of_token_update(layer, tokens + seen)
        attend = layer.cross_attn_image_to_token
        change = shared_image_to_token_attention(attend, tokens + prompt, tokens, image.first_queries)
        return tokens, self._add(0, image.tokens, change)

    def _later_layer(
        self, level: int, image: ImageTokens, prompt: Tensor, tokens: Tensor, content: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A layer in which every prompt has its own image tokens."""
        layer = self._layers[level]
        located_tokens = tokens + prompt
        tokens = layer.norm1(tokens + layer.self_attn(q=located_tokens, k=located_tokens, v=tokens))
        located = content + image.positional
        seen = token_to_image_attention(layer.cross_attn_token_to_image, tokens + prompt, located, content)
        tokens = _rest_of_token_update(layer, tokens + seen)
        change = image_to_token_attention(layer.cross_attn_image_to_token, tokens + prompt, tokens, located)
        return tokens, self._add(level, content, change)

    def _add(self, level: int, content: Tensor, change: tuple[Tensor, Tensor]) -> Tensor:
        """Add an attention's output, given as shares and rows, to the image tokens and normalise."""
        shares, rows = change
        updated = torch.baddbmm(content.expand(len(rows), -1, -1), shares.transpose(1, 2), rows)
        gain, offset, eps = self._norms[level]
        return F.layer_norm(updated, gain.shape, gain, offset, eps)

    def _stored(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous()


def _rest_of_token_update(layer: Any, tokens: Tensor) -> Tensor:
    """What follows a layer's token-to-image attention on the token side: norm, MLP, norm."""
    tokens = layer.norm2(tokens)
    out: Tensor = layer.norm3(tokens + layer.mlp(tokens))
    return out
