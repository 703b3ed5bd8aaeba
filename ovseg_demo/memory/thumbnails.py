"""A small picture of a region, for people to see what an example is."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE_PX = 64
"""Longer side at most."""
MAX_BYTES = 8_000
"""Most bytes of one."""


def thumbnail(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> bytes:
    """The box around a region as a small JPEG, what lies beside the region paled.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool with at least one pixel.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels, inside = image[part], mask[part].astype(np.float32)
    height, width = inside.shape
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    share = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)[..., None]
    paled = share * small + (1 - share) * (0.25 * small + 0.75 * 255)
    buffer = io.BytesIO()
    Image.fromarray(paled.round().astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
