"""SAM's mask decoder for many single-point prompts on one image, without the repeated work.

The published decoder copies the image embedding for every prompt and projects each copy. Here the same
weights are walked through with two identities, so that the result differs by rounding only:

- in the first layer all prompts still see the same image, so its projections are computed once;
- later, where every prompt has its own image tokens, the few (seven) prompt tokens are projected into the
  image's space instead of thousands of image tokens into the attention's: (x Wk) q = x (Wk q).

Masks are read out only for prompts whose predicted quality is worth it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageTokens:
    """One image as the decoder sees it; N = height * width tokens of 256 channels, row-major.

    Attributes:
        height, width: the token grid.
        tokens: (1, N, C) embedding plus the "no mask prompt" vector.
        positional: (1, N, C) positional encoding.
        first_keys, first_values: (1, heads, N, C') projections for the first layer's token-to-image attention.
        first_queries: (1, N, C'') projection for its image-to-token attention.
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
    """A batch of B decoded point prompts, before any mask is drawn.

    Attributes:
        quality: (B, 3) float32, predicted IoU of the three masks.
        mask_vectors: (B, 3, C/8) float32, the vectors that select the masks from the upscaled image.
        image_tokens: (B, N, C) the image as changed by each prompt.
        height, width: its token grid.
    """

    quality: Tensor
    mask_vectors: Tensor
    image_tokens: Tensor
    height: int
    width: int


class PointDecoder:
    """Batched decoding of positive points with the weights of a SAM or MobileSAM.

    Args:
        prompt_encoder: the package's PromptEncoder.
        mask_decoder: the package's MaskDecoder.
        dtype: number format of everything as long as the image; prompt tokens stay in float32.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any, dtype: torch.dtype) -> None:
        self._prompts = prompt_encoder
        self._decoder = mask_decoder
        self._layers = list(mask_decoder.transformer.layers)
        self._dtype = dtype
        self._norms = [
            (layer.norm4.weight.to(dtype), layer.norm4.bias.to(dtype), layer.norm4.eps) for layer in self._layers
        ]
        self._upscale = _Upscaling(mask_decoder.output_upscaling, dtype)

    def prepare(self, embedding: Tensor) -> ImageTokens:
        """Project the image once.

        Args:
            embedding: (1, C, h, w) from the image encoder. h and w may be less than the encoder's full grid
                when the padded part has been cut off.
        """
        _, channels, height, width = embedding.shape
        bare = self._prompts.no_mask_embed.weight.reshape(1, channels, 1, 1)
        full = self._prompts.get_dense_pe()[..., :height, :width]
        tokens = (embedding.float() + bare).flatten(2).transpose(1, 2)
        positional = full.flatten(2).transpose(1, 2)
        first = self._layers[0]
        to_image, to_tokens = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        located = tokens + positional
        return ImageTokens(
            height=height,
            width=width,
            tokens=tokens.to(self._dtype).contiguous(),
            positional=positional.to(self._dtype).contiguous(),
            first_keys=_heads(to_image.k_proj(located), to_image.num_heads).to(self._dtype).contiguous(),
            first_values=_heads(to_image.v_proj(tokens), to_image.num_heads).to(self._dtype).contiguous(),
            first_queries=to_tokens.q_proj(located).to(self._dtype).contiguous(),
        )

    def decode(self, image: ImageTokens, points: Tensor) -> Decoded:
        """Run the two-way transformer for B prompts.

        Args:
            points: (B, 2) float32 x, y in pixels of the encoder's input.
        """
        labels = torch.ones(len(points), 1, device=points.device)
        sparse, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        fixed = torch.cat([self._decoder.iou_token.weight, self._decoder.mask_tokens.weight])
        prompt = torch.cat([fixed.expand(len(points), -1, -1), sparse], dim=1)

        queries, keys = prompt, image.tokens
        for level, layer in enumerate(self._layers):
            queries = self._self_attention(layer, queries, prompt)
            located = None if level == 0 else keys + image.positional
            attend = layer.cross_attn_token_to_image
            if located is None:
                queries = queries + _attend_to_shared(attend, queries + prompt, image.first_keys, image.first_values)
            else:
                queries = queries + _attend_to_image(attend, queries + prompt, located, keys)
            queries = layer.norm3((normed := layer.norm2(queries)) + layer.mlp(normed))
            keys = self._update_image(level, image, keys, located, queries, queries + prompt)
        final = self._decoder.transformer
        seen = _attend_to_image(final.final_attn_token_to_image, queries + prompt, keys + image.positional, keys)
        queries = final.norm_final_attn(queries + seen)

        quality = self._decoder.iou_prediction_head(queries[:, 0])
        heads = self._decoder.output_hypernetworks_mlps
        vectors = torch.stack([head(queries[:, 1 + i]) for i, head in enumerate(heads) if i > 0], dim=1)
        return Decoded(quality[:, 1:], vectors, keys, image.height, image.width)

    def masks(self, decoded: Decoded, rows: Tensor) -> Tensor:
        """Draw the three masks of some prompts.

        Args:
            rows: (R,) int64, which prompts of the batch.

        Returns:
            (R, 3, 4 * height, 4 * width) float32 logits.
        """
        upscaled = self._upscale(decoded.image_tokens[rows])
        return self._upscale.read(upscaled, decoded.mask_vectors[rows], decoded.height, decoded.width)

    def _self_attention(self, layer: Any, queries: Tensor, prompt: Tensor) -> Tensor:
        if layer.skip_first_layer_pe:
            attended = layer.self_attn(q=queries, k=queries, v=queries)
        else:
            located = queries + prompt
            attended = queries + layer.self_attn(q=located, k=located, v=queries)
        normed: Tensor = layer.norm1(attended)
        return normed

    def _update_image(
        self, level: int, image: ImageTokens, keys: Tensor, located: Tensor | None, queries: Tensor, located_q: Tensor
    ) -> Tensor:
        """Image tokens attend to prompt tokens: keys (1 or B, N, C) -> (B, N, C)."""
        attend = self._layers[level].cross_attn_image_to_token
        heads = attend.num_heads
        batch, count, channels = queries.shape
        k = _heads(attend.k_proj(located_q), heads)  # (B, heads, T, c)
        v = _heads(attend.v_proj(queries), heads)
        scale = k.shape[-1] ** -0.5
        if located is None:
            # q is shared: give every head its own block of columns, so that one product serves all heads.
            blocks = torch.zeros(batch, heads, k.shape[-1], heads, count, device=k.device)
            index = torch.arange(heads, device=k.device)
            blocks[:, index, :, index, :] = (k * scale).permute(1, 0, 3, 2)
            columns = blocks.reshape(batch, heads * k.shape[-1], heads * count).to(self._dtype)
            scores = image.first_queries.expand(batch, -1, -1) @ columns
        else:
            weight = attend.q_proj.weight.view(heads, -1, channels)
            columns = torch.einsum("hce,bhtc->beht", weight, k * scale).reshape(batch, channels, heads * count)
            offset = torch.einsum("hc,bhtc->bht", attend.q_proj.bias.view(heads, -1), k * scale)
            scores = torch.baddbmm(
                offset.reshape(batch, 1, heads * count).to(self._dtype), located, columns.to(self._dtype)
            )
        share = scores.view(batch, -1, heads, count).softmax(dim=-1).view(batch, -1, heads * count)
        weight = attend.out_proj.weight.view(channels, heads, -1)
        rows = torch.einsum("bhtc,ehc->bhte", v, weight)
        rows[:, 0] += attend.out_proj.bias  # a head's shares sum to one, so the bias may ride on any one head
        rows = rows.reshape(batch, heads * count, channels).to(self._dtype)
        updated = torch.baddbmm(keys.expand(batch, -1, -1), share, rows)
        gain, bias, eps = self._norms[level]
        return F.layer_norm(updated, (channels,), gain, bias, eps)


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads * c) -> (B, heads, T, c)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend_to_shared(attend: Any, located: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens (B, T, C) attend to one image's keys and values (1, heads, N, c)."""
    heads = attend.num_heads
    batch, count, _ = located.shape
    q = _heads(attend.q_proj(located), heads).transpose(0, 1).reshape(1, heads, batch * count, -1)
    seen = F.scaled_dot_product_attention(q.to(keys.dtype), keys, values).float()
    seen = seen.view(heads, batch, count, -1).permute(1, 2, 0, 3).flatten(2)
    out: Tensor = attend.out_proj(seen)
    return out


def _attend_to_image(attend: Any, located_q: Tensor, located: Tensor, keys: Tensor) -> Tensor:
    """Tokens (B, T, C) attend to their own image tokens (B, N, C), projected token by token.

    The key bias shifts all scores of a token alike and the softmax does not see it; the value bias passes
    through because the shares sum to one.
    """
    heads = attend.num_heads
    batch, count, channels = located_q.shape
    q = _heads(attend.q_proj(located_q), heads)
    weight = attend.k_proj.weight.view(heads, -1, channels)
    rows = torch.einsum("bhtc,hce->bhte", q * q.shape[-1] ** -0.5, weight).reshape(batch, heads * count, channels)
    share = (rows.to(located.dtype) @ located.transpose(1, 2)).softmax(dim=-1)  # (B, heads * T, N)
    seen = (share @ keys).float().view(batch, heads, count, channels)
    weight = attend.v_proj.weight.view(heads, -1, channels)
    values = torch.einsum("bhte,hce->bthc", seen, weight).flatten(2) + attend.v_proj.bias
    out: Tensor = attend.out_proj(values)
    return out


class _Upscaling:
    """The decoder's two stride-2 transposed convolutions as matrix products on channels-last tokens."""

    def __init__(self, layers: Any, dtype: torch.dtype) -> None:
        first, norm, _, second, _ = layers
        self._first = _as_matrix(first, dtype)
        self._second = _as_matrix(second, dtype)
        self._norm = (norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, N, C) -> (R, N, 4, 4, C / 8): each token becomes 2 x 2, and each of those 2 x 2 again."""
        count, length, _ = tokens.shape
        weight, bias = self._first
        x = F.linear(tokens, weight, bias).view(count, length, 4, -1)
        gain, offset, eps = self._norm
        x = F.gelu(F.layer_norm(x, (x.shape[-1],), gain, offset, eps))
        weight, bias = self._second
        return F.gelu(F.linear(x, weight, bias)).view(count, length, 4, 4, -1)

    def read(self, upscaled: Tensor, vectors: Tensor, height: int, width: int) -> Tensor:
        """Dot products with (R, M, C / 8) vectors, put back in image order: (R, M, 4 * height, 4 * width) float32."""
        count, length = upscaled.shape[:2]
        flat = upscaled.reshape(count, length * 16, -1)
        logits = vectors.to(flat.dtype) @ flat.transpose(1, 2)
        logits = logits.view(count, -1, height, width, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return logits.reshape(count, -1, 4 * height, 4 * width).float()


def _as_matrix(convolution: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A 2 x 2 stride-2 transposed convolution as weight (4 * C_out, C_in) and bias (4 * C_out,)."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    return weight.to(dtype).contiguous(), convolution.bias.repeat(4).to(dtype)
