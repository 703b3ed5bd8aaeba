"""Mask proposals: class-agnostic masks of one image."""

from __future__ import annotations

from pathlib import Path

from ovseg_demo.proposals.base import Proposals, Proposer, propose

__all__ = ["Proposals", "Proposer", "load_proposer", "propose"]


def load_proposer(
    name: str,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    size: int | None = None,
    density: str = "normal",
) -> Proposer:
    import torch

    from ovseg_demo.proposals.mobile_sam import load_mobile_sam

    return load_mobile_sam(weights, device=torch.device(device), side=size or 1024, density=density)
