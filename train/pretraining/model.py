"""The model under pretraining: the image tower, and a text map for each of its two branches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.mini import MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import TEXT_WIDTH


class TextHead(nn.Module):
    """The text side of one half of the space: its projection and its two temperatures."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        nn.init.eye_(self.projection.weight)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(20.0)))  # captions, names

    def words(self, vectors: Tensor) -> Tensor:
        """MiniLM vectors -> unit vectors (n, D)."""
        return functional.normalize(self.projection(vectors), dim=-1)


class PretrainingModel(nn.Module):
    """The tower and the text side of its halves: all that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = MiniImageTower(MiniConfig())
        self.tokens, self.pooled = TextHead(), TextHead()

    @torch.no_grad()
    def joined(self, token_weight: float) -> tuple[MiniImageTower, Tensor, float]:
        """The tower with both halves, the text map, and the temperature.

        A cosine times the temperature is the weighted mean of the halves' cosines, times the
        mean of their temperatures.
        """
        weights = torch.tensor([token_weight, 1.0])
        self.tower.branch_weights.copy_(weights)
        heads = (self.tokens, self.pooled)
        scales = torch.stack([head.log_scales[1].exp() for head in heads])
        lengths = 2**0.5 * weights.norm()  # of a text's vector and a crop's
        scale = lengths / weights.sum() * (weights * scales).sum() / weights.sum()
        return self.tower, torch.cat([head.projection.weight for head in heads]), float(scale)
