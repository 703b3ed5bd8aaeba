"""SAM's masks from image tokens: each token becomes 4 x 4 cells, everywhere or only along the masks' edges.

The decoder's two transposed convolutions have strides as large as their kernels, so that the cells of a token
depend on no other token. Far from the edges of a mask one cell tells of all 16 what counts, their sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.compute.fused_layers import project

if TYPE_CHECKING:
    from ovseg_demo.proposals.decoder import Decoded

EDGE_MARGIN = 2.5
"""Far from an edge, logits of a token and its neighbours are larger, of one sign; stability looks up to 1."""
_ROWS_STEP = 512
"""Rows are filled up to a multiple: oneDNN writes a program for each number."""
_FIRST, _SECOND = 0, 3
"""Where a token's sampled cell lies: the first of 2 x 2 cells, and the last of the 2 x 2 in that one."""


class MaskUpscaling:
    """The decoder's two stride-2 transposed convolutions as matrix products on channels-last tokens.

    Args:
        layers: the package's `output_upscaling`.
        dtype: number type of the products.
    """

    def __init__(self, layers: Any, dtype: torch.dtype) -> None:
        first, norm, _, second, _ = layers
        self._first = _as_matrices(first, dtype)
        self._second = _as_matrices(second, dtype)
        self._norm = norm_parameters(norm, dtype)

    def masks(self, decoded: Decoded, wanted: Tensor) -> Tensor:
        """All cells of some masks.

        Args:
            decoded: B prompts with M masks.
            wanted: (B, M) bool, K of them true.

        Returns:
            (K, 4 * height, 4 * width) float32 logits, those of a prompt together.
        """
        rows = wanted.any(dim=1).nonzero()[:, 0]
        tokens = decoded.image_tokens
        cells = self._cells(tokens if len(rows) == len(tokens) else tokens[rows]).flatten(1, 3)
        logits = decoded.mask_vectors[rows].to(cells.dtype) @ cells.transpose(1, 2)
        logits = logits[wanted[rows]].view(-1, decoded.height, decoded.width, 2, 2, 2, 2)
        # Each image token holds 2 x 2 cells of 2 x 2 cells: reorder them into rows and columns.
        logits = logits.permute(0, 1, 3, 5, 2, 4, 6)
        return logits.reshape(-1, 4 * decoded.height, 4 * decoded.width).float()

    def edge_masks(self, decoded: Decoded, wanted: Tensor, margin: float = EDGE_MARGIN) -> Tensor:
        """The same; tokens that are far from an edge of a prompt's masks have one logit for all their cells.

        Args:
            decoded: see `masks`.
            wanted: see `masks`.
            margin: how large all logits of a token and its eight neighbours must be, of one sign, to be far
                from an edge.
        """
        tokens, vectors = decoded.image_tokens, decoded.mask_vectors
        sampled = vectors.to(tokens.dtype) @ self._sampled_cell(tokens).transpose(1, 2)
        sampled = sampled[wanted].view(-1, decoded.height, decoded.width).float()
        per_prompt = wanted.sum(dim=1).tolist()
        at_edge = torch.stack([near.any(dim=0) for near in _near_edges(sampled, margin).split(per_prompt)])
        places = at_edge.flatten().nonzero()[:, 0]
        rows = F.pad(places, (0, -len(places) % _ROWS_STEP))
        cells = self._cells(tokens.flatten(0, 1)[rows][None])[0].flatten(1, 2).float()  # (E, 16, C / 8)

        logits = sampled[:, :, None, :, None].expand(-1, -1, 4, -1, 4).contiguous()
        of_prompts = zip(
            logits.permute(0, 1, 3, 2, 4).split(per_prompt),  # (K, h, w, 4, 4)
            cells[: len(places)].split(at_edge.sum(dim=(1, 2)).tolist()),
            at_edge,
            vectors,
            wanted,
            strict=True,
        )
        for masks, own, edge, vector, those in of_prompts:
            fine = (own.flatten(0, 1) @ vector[those].T).view(len(own), 2, 2, 2, 2, len(masks))
            masks[:, edge] = fine.permute(5, 0, 1, 3, 2, 4).reshape(len(masks), len(own), 4, 4)
        return logits.view(-1, 4 * decoded.height, 4 * decoded.width)

    def _cells(self, tokens: Tensor) -> Tensor:
        """(R, N, C) -> (R, N, 4, 4, C / 8): each token becomes 2 x 2 cells, and each of those 2 x 2 again."""
        count, length, _ = tokens.shape
        (weight, bias), (weights, biases) = self._first, self._second
        x = project(tokens, weight.flatten(0, 1), bias.repeat(4))
        x = self._normalised(x.view(count, length, 4, len(bias)))
        x = project(x, weights.flatten(0, 1), biases.repeat(4), activation="gelu")
        return x.view(count, length, 4, 4, len(biases))

    def _sampled_cell(self, tokens: Tensor) -> Tensor:
        """(R, N, C) -> (R, N, C / 8): one of each token's 16 cells, beside its centre."""
        (weight, bias), (weights, biases) = self._first, self._second
        x = self._normalised(project(tokens, weight[_FIRST], bias))
        return project(x, weights[_SECOND], biases, activation="gelu")

    def _normalised(self, x: Tensor) -> Tensor:
        gain, offset, eps = self._norm
        return F.gelu(F.layer_norm(x, gain.shape, gain, offset, eps))


def norm_parameters(norm: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Gain, offset and epsilon of a layer norm over channels."""
    return norm.weight.to(dtype), norm.bias.to(dtype), norm.eps


def _as_matrices(convolution: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A 2 x 2 stride-2 transposed convolution as weights (4, C_out, C_in), one a cell, and bias (C_out,)."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 1)
    return weight.to(dtype).contiguous(), convolution.bias.to(dtype)


def _near_edges(logits: Tensor, margin: float) -> Tensor:
    """Where (K, h, w) logits have one below the margin and one above its negative among 3 x 3: bool."""
    return (_largest_of_3x3(logits) > -margin) & (_largest_of_3x3(-logits) > -margin)


def _largest_of_3x3(x: Tensor) -> Tensor:
    """Maximum of each of (K, h, w) and its neighbours; PyTorch's pooling takes ten times as long."""
    x = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    x = torch.maximum(torch.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
