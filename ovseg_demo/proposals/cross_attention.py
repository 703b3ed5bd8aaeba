"""Attention between an image's thousands of tokens and a prompt's few, with SAM's trained projections.

A prompt has T = 7 tokens, the image N = 1,000 to 4,096. SAM's decoder projects the image for every prompt,
which takes most of its time. Since (image Wk) . q = image . (Wk q), projecting the few prompt tokens into the
image's space gives the same result. Two cases have their own functions:

- *own*: every prompt has its own image tokens (later layers), so the prompt's tokens are projected;
- *shared*: all prompts still see the same image (first layer), so the image is projected once.

Sizes: B prompts, T tokens, N image tokens, C channels, H heads, c = channels per head. `attend` is the
package's Attention with q_proj, k_proj, v_proj, out_proj and num_heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H * c) -> (B, H, T, c)."""
    batch, count, _ = x.shape
    return x.view(batch, count, heads, -1).transpose(1, 2)


def token_to_image_attention(attend: Any, tokens: Tensor, located: Tensor, content: Tensor) -> Tensor:
    """Prompt tokens attend to image tokens.

    The key bias shifts all scores of a token alike, so the softmax cancels it. The value bias is added as it
    is, because a token's shares sum to one.

    Args:
        tokens: (B, T, C) float32 with their positions.
        located: (B, N, C) image tokens with their positions.
        content: (B, N, C) image tokens without.

    Returns:
        (B, T, C) float32.
    """
    heads, (batch, count, channels) = attend.num_heads, tokens.shape
    q = split_heads(attend.q_proj(tokens), heads)
    into_image = attend.k_proj.weight.view(heads, -1, channels)
    rows = torch.einsum("bhtc,hce->bhte", q * q.shape[-1] ** -0.5, into_image)
    rows = rows.reshape(batch, heads * count, channels).to(located.dtype)
    shares = (rows @ located.transpose(1, 2)).softmax(dim=-1)  # (B, H * T, N)
    seen = (shares @ content).float().view(batch, heads, count, channels)
    from_image = attend.v_proj.weight.view(heads, -1, channels)
    values = torch.einsum("bhte,hce->bthc", seen, from_image).flatten(2) + attend.v_proj.bias
    out: Tensor = attend.out_proj(values)
    return out


def token_to_shared_image_attention(attend: Any, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Prompt tokens (B, T, C) attend to one image's projected keys and values, each (1, H, N, c)."""
    heads, (batch, count, _) = attend.num_heads, tokens.shape
    q = split_heads(attend.q_proj(tokens), heads).transpose(0, 1).reshape(1, heads, batch * count, -1)
    seen = F.scaled_dot_product_attention(q.to(keys.dtype), keys, values).float()
    out: Tensor = attend.out_proj(seen.view(heads, batch, count, -1).permute(1, 2, 0, 3).flatten(2))
    return out


def image_to_token_attention(
    attend: Any, tokens: Tensor, values: Tensor, located: Tensor
) -> tuple[Tensor, Tensor]:
    """Image tokens attend to prompt tokens.

    Args:
        tokens: (B, T, C) float32 with their positions.
        values: (B, T, C) float32 without.
        located: (B, N, C) image tokens with their positions.

    Returns:
        shares (B, H * T, N) and rows (B, H * T, C); the attention's output is the product of the transposed
        shares with the rows, so that the caller can add it to the image in one step.
    """
    heads, (batch, count, channels) = attend.num_heads, tokens.shape
    k = split_heads(attend.k_proj(tokens), heads)
    k = k * k.shape[-1] ** -0.5
    weight, bias = attend.q_proj.weight.view(heads, -1, channels), attend.q_proj.bias.view(heads, -1)
    keys = torch.einsum("hce,bhtc->bhte", weight, k).reshape(batch, heads * count, channels)
    offset = torch.einsum("hc,bhtc->bht", bias, k).reshape(batch, heads * count, 1)
    scores = torch.baddbmm(offset.to(located.dtype), keys.to(located.dtype), located.transpose(1, 2))
    return _shares(scores, heads, count), _rows(attend, values).to(located.dtype)


def shared_image_to_token_attention(
    attend: Any, tokens: Tensor, values: Tensor, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """Like image_to_token_attention for one image whose projected queries are (1, N, H * c)."""
    heads, (batch, count, _) = attend.num_heads, tokens.shape
    k = split_heads(attend.k_proj(tokens), heads)
    k = k * k.shape[-1] ** -0.5
    # Every head gets its own block, so that one product serves all heads.
    blocks = torch.zeros(batch, heads, count, heads, k.shape[-1], device=k.device)
    index = torch.arange(heads, device=k.device)
    blocks[:, index, :, index] = k.transpose(0, 1)
    keys = blocks.reshape(batch * heads * count, -1).to(queries.dtype)
    scores = (keys @ queries[0].T).view(batch, heads * count, -1)
    return _shares(scores, heads, count), _rows(attend, values).to(queries.dtype)


def _shares(scores: Tensor, heads: int, count: int) -> Tensor:
    """Softmax over each head's T scores: (B, H * T, N) -> the same.

    With the image tokens last, processors take many of them in one step; with T last, one score at a time.
    """
    batch, _, length = scores.shape
    return scores.view(batch, heads, count, length).softmax(dim=2).view(batch, -1, length)


def _rows(attend: Any, values: Tensor) -> Tensor:
    """Apply the output projection to the values of each head: (B, T, C) -> (B, H * T, C)."""
    v = split_heads(attend.v_proj(values), attend.num_heads)
    weight = attend.out_proj.weight.view(values.shape[-1], attend.num_heads, -1)
    rows = torch.einsum("bhtc,ehc->bhte", v, weight)
    rows[:, 0] += attend.out_proj.bias  # a head's shares sum to one, so any one head may carry the bias
    return rows.flatten(1, 2)
