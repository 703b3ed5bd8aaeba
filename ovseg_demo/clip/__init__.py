"""Mask-adapted CLIP: region crops and names in, unit-length features of one space out."""

from __future__ import annotations

from ovseg_demo.clip.model import MaskAdaptedCLIP, StemFeatures, load_clip

__all__ = ["MaskAdaptedCLIP", "StemFeatures", "load_clip"]
