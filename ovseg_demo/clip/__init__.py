"""Mask-adapted CLIP: region crops and names in, unit-length features of one space out."""

from __future__ import annotations

from ovseg_demo.clip.loading import load_clip
from ovseg_demo.clip.model import MaskAdaptedCLIP, RegionCache, StemFeatures

__all__ = ["MaskAdaptedCLIP", "RegionCache", "StemFeatures", "load_clip"]
