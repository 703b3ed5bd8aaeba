"""Mask-adapted CLIP: region crops and names in, unit-length features of one space out."""

from __future__ import annotations

from ovseg_demo.clip.model import FirstLook, MaskAdaptedCLIP, load_clip

__all__ = ["FirstLook", "MaskAdaptedCLIP", "load_clip"]
