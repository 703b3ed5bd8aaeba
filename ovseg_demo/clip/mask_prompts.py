"""Mask prompt tuning of the OVSeg paper (arXiv 2210.04150, section 3.3).

A region crop shows the region on a background of one colour. A vision transformer cuts the crop into patches;
a patch of background alone becomes a token that CLIP never saw in its training and that distorts the feature.
Mask prompt tuning keeps every weight of CLIP and *replaces those tokens* with learned vectors:

    T (Np x E)   the patch tokens of a crop, Np of them, each E wide
    M (Np)       the token mask: 1 = the patch shows some of the region, 0 = background only
    P (Np x E)   the mask prompts, learned, one vector for each place of the grid

    tokens that go on = T * M + P * (1 - M)                             (the paper's equation for prompts)

The first blocks are each followed by a replacement with further prompts ("deep" prompts); published models
have three levels. Replaced tokens take part in the attention like any other token.

With prompts of depth 3 (the caller applies level 0, between patch embedding and positions):

    crop -> patches -> LEVEL 0 -> class token in front, positions added -> norm -> block 1 -> LEVEL 1
         -> block 2 -> LEVEL 2 -> block 3 -> ... -> last block -> norm -> class token -> feature
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskPrompts(nn.Module):
    """The learned prompts P of every level.

    Args:
        depth: how many times tokens are replaced; 0 replaces nothing.
        positions: places of the patch grid, or 1 for one vector shared by all places.
        width: width E of a token.
    """

    def __init__(self, depth: int, positions: int, width: int) -> None:
        super().__init__()
        self.mask_embedding = nn.Parameter(torch.empty(depth, positions, width))
        nn.init.normal_(self.mask_embedding, std=0.02)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return self.mask_embedding.shape[0]

    def at(self, level: int, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Replace the background tokens of one level; beyond the last level tokens pass unchanged.

        Args:
            level: 0 right after the patch embedding, d after block number d.
            tokens: (B, N, E) patch tokens, without the class token.
            token_mask: (B, N) 1 where the patch shows some of the region, else 0.

        Returns:
            (B, N, E) tokens, of the type of `tokens`.
        """
        if level >= self.depth:
            return tokens
        prompt = self.mask_embedding[level].to(tokens.dtype)  # (N, E), or (1, E) for all places
        kept = token_mask.to(tokens.dtype).unsqueeze(-1)  # (B, N, 1)
        return tokens * kept + prompt * (1 - kept)  # T * M + P * (1 - M)


def token_mask(region_masks: Tensor, patch: int) -> Tensor:
    """Token mask M of the paper: 1 for patches that show at least one pixel of the region.

    Args:
        region_masks: (B, S, S) masks of the crops, 0 = background.
        patch: side of a patch in pixels.

    Returns:
        (B, N) float32 of 0 and 1, row by row from the top left, N = (S // patch) ** 2.
    """
    pixels = region_masks.float().unsqueeze(1)
    return (functional.max_pool2d(pixels, kernel_size=patch, stride=patch) > 0).float().flatten(1)


def run_blocks(
    blocks: Iterable[nn.Module], x: Tensor, prompts: MaskPrompts | None, token_mask: Tensor | None
) -> Tensor:
    """Run the transformer blocks and apply the deep prompts, level d after block number d.

    The replacement acts on the residual stream, without positions or a norm. The class token is never
    replaced. Without prompts or without a mask this is the plain tower.

    Args:
        blocks: modules that map (B, 1 + N, E) to the same shape.
        x: (B, 1 + N, E) tokens, the class token in front.
        prompts: the mask prompts, level 0 of which the caller has applied.
        token_mask: (B, N) of 0 and 1.

    Returns:
        (B, 1 + N, E) tokens after the last block.
    """
    for number, block in enumerate(blocks, start=1):
        x = block(x)
        if prompts is not None and token_mask is not None and number < prompts.depth:
            x = torch.cat([x[:, :1], prompts.at(number, x[:, 1:], token_mask)], dim=1)
    return x
