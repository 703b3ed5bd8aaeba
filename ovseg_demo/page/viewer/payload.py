"""What the viewer in the browser gets: one object with everything about a result.

Maps travel as deflated bytes, not as pictures: browsers may change a picture's pixels when it is read back
from a canvas (colour management, protection against fingerprinting), and label 7 must stay label 7. The
viewer turns them into colours itself, so opacity, outlines, hiding, hovering and comparing need no request.
"""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg_demo.caching.array_cache import ArrayCache
from ovseg_demo.output.label_spots import LabelSpot, change_spots, label_spots
from ovseg_demo.result import Comparison, Segmentation

__all__ = ["map_size", "photo_payload", "result_payload"]

MAX_MAP_SIDE = 1024
"""Longer side of the maps in the browser, in pixels; larger ones are thinned out."""
MAX_PHOTO_SIDE = 1600

Payload = dict[str, Any]


def photo_payload(image: npt.NDArray[np.uint8]) -> Payload:
    """The photo as the viewer shows it.

    Args:
        image: (H, W, 3) RGB.

    Returns:
        `url`, a JPEG of at most `MAX_PHOTO_SIDE` as a data URL, and `width` and `height` of the photo itself.
    """
    height, width = image.shape[:2]
    scale = min(1.0, MAX_PHOTO_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=88)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"url": url, "width": width, "height": height}


def result_payload(result: Segmentation | Comparison) -> Payload:
    """Everything the viewer shows about one arm or two.

    Returns:
        Plain types only: `photo`, `map` (size of the maps), `masks` (whole regions, one bit a pixel),
        `arms` by name, and with two arms `comparison`.
    """
    arms = (result.second, result.first) if isinstance(result, Comparison) else (result,)
    first = arms[0]
    width, height = map_size(first)
    payload: Payload = {
        "photo": photo_payload(first.image),
        "map": {"width": width, "height": height},
        "masks": None if first.masks is None else _packed_masks(first.masks, width, height),
        "arms": {arm.arm: _arm(arm, width, height) for arm in arms},
    }
    if isinstance(result, Comparison):
        spots = [_spot(s) | {"from": s.from_index} for s in change_spots(result)]
        payload["comparison"] = result.to_json() | {"spots": spots}
    return payload


def _arm(seg: Segmentation, width: int, height: int) -> Payload:
    facts = seg.to_json()
    return {
        "labels": _packed(_thinned(seg.label_map, width, height).astype("<u2")),
        "regions": _packed(_thinned(seg.region_map, width, height).astype("<u2")),
        "unassigned_fraction": facts["unassigned_fraction"],
        "classes": facts["classes"],
        "facts": facts["regions"],
        "timings": facts["timings"],
        "models": facts["models"],
        "settings": facts["settings"],
        "spots": [_spot(s) for s in label_spots(seg)],
    }


def _spot(spot: LabelSpot) -> Payload:
    numbers = {"x": spot.x, "y": spot.y, "w": spot.half_width, "h": spot.half_height}
    return {"index": spot.class_index, **{key: round(value, 4) for key, value in numbers.items()}}


def map_size(seg: Segmentation) -> tuple[int, int]:
    """Width and height of the maps in the browser."""
    width, height = seg.size
    scale = min(1.0, MAX_MAP_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _thinned(values: npt.NDArray[np.uint16], width: int, height: int) -> npt.NDArray[np.uint16]:
    if values.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint16)


def _pack_masks(masks: npt.NDArray[np.bool_], width: int, height: int) -> str:
    """Bits of all whole regions one after the other, each region beginning with a new byte."""
    resized = (
        mask
        if mask.shape == (height, width)
        else cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
        for mask in masks
    )
    return _packed(b"".join(np.packbits(mask).tobytes() for mask in resized))


def _packed(values: npt.NDArray[np.uint16] | bytes) -> str:
    raw = values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()
    return base64.b64encode(zlib.compress(raw, 4)).decode()


# The regions of a photo stay the same when its words change.
_packed_masks = ArrayCache(_pack_masks)
