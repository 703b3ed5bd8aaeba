"""Mask-adapted CLIP: region crops and names in, unit-length features of one space out."""
