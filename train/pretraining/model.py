"""The model under pretraining: the image tower, and a text map for each of its two branches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.mini import MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import TEXT_WIDTH


class Half(nn.Module):
    """The text side of one half of the space: its map and its two temperatures."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        nn.init.eye_(self.projection.weight)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(20.0)))  # captions, names

    def words(self, vectors: Tensor) -> Tensor:
        """MiniLM vectors -> unit vectors (n, D)."""
        return functional.normalize(self.projection(vectors), dim=-1)


class Pretraining(nn.Module):
    """The tower and the text side of its halves: all that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = MiniImageTower(MiniConfig())
        self.tokens, self.glance = Half(), Half()

    @torch.no_grad()
    def joined(self, token_trust: float) -> tuple[MiniImageTower, Tensor, float]:
        """The tower with both halves, the text map, and the temperature.

        A cosine times the temperature is the mean of the halves' cosines, weighted by trust, times the mean
        of their temperatures.
        """
        trust = torch.tensor([token_trust, 1.0])
        self.tower.branch_weights.copy_(trust)
        halves = (self.tokens, self.glance)
        scales = torch.stack([half.log_scales[1].exp() for half in halves])
        lengths = 2**0.5 * trust.norm()  # of a text's vector and a crop's
        scale = lengths / trust.sum() * (trust * scales).sum() / trust.sum()
        return self.tower, torch.cat([half.projection.weight for half in halves]), float(scale)
