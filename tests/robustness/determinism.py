"""Part 8: the same photo, words and weights give the same label map, bit for bit on a CPU in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import ovseg_demo.clip.crop_batches as crop_batches
from ovseg_demo.devices import fast_dtype
from ovseg_demo.result import Segmentation
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.robustness.hostile_files import EXAMPLES
from tests.robustness.plan import Plan
from tests.robustness.table import Figure, share_of

__all__ = ["figures"]

PHOTO, WORDS = EXAMPLES / "coffee.jpg", "cup | mug, saucer, spoon, coffee, wooden table, zebra"
BATCHES = (1, 3, 8, 32, 128)
LEAST_AGREEMENT = 0.999
"""Of the pixels, where the number type is not float32 and between sizes of batches."""


def figures(plan: Plan) -> list[Figure]:
    """Run the part."""
    torch.manual_seed(0)
    segmenter = _fresh()
    first = segmenter(PHOTO, WORDS)
    again = [_once_more(segmenter) for _ in range(plan.runs - 1)]
    same = sum(np.array_equal(first.label_map, other.label_map) for other in again)
    facts = sum(_facts(first) == _facts(other) for other in again)
    sizes = BATCHES if plan.thorough else BATCHES[:2]
    by_batch = [_with_batch(segmenter, size) for size in sizes]
    agreement = min(_agreement(first, other) for other in by_batch)
    identical = sum(np.array_equal(first.label_map, other.label_map) for other in by_batch)
    exact = fast_dtype(torch.device("cpu")) == torch.float32
    reloaded = _fresh()(PHOTO, WORDS)
    return [
        Figure(
            "same label map, run after run",
            share_of(same + 1, plan.runs),
            f"all {plan.runs}",
            same == len(again),
        ),
        Figure(
            "same facts, run after run",
            share_of(facts + 1, plan.runs),
            f"all {plan.runs}",
            facts == len(again),
        ),
        Figure(
            f"batches of {', '.join(map(str, sizes))}: same pixels",
            f"{agreement:.4%}, {identical} of {len(sizes)} identical",
            f">= {LEAST_AGREEMENT:.1%}" if not exact else "all identical",
            identical == len(sizes) if exact else agreement >= LEAST_AGREEMENT,
        ),
        Figure(
            "loaded anew: same label map",
            "yes" if np.array_equal(first.label_map, reloaded.label_map) else "no",
            "yes",
            np.array_equal(first.label_map, reloaded.label_map),
        ),
    ]


def _fresh() -> Segmenter:
    return Segmenter.from_pretrained(settings=replace(Settings(), max_side_px=512), device="cpu")


def _once_more(segmenter: Segmenter) -> Segmentation:
    """With nothing kept of the photo."""
    segmenter.photos.clear()
    return segmenter(PHOTO, WORDS)


def _with_batch(segmenter: Segmenter, size: int) -> Segmentation:
    before = crop_batches.CROPS_AT_ONCE
    crop_batches.CROPS_AT_ONCE = size
    try:
        return _once_more(segmenter)
    finally:
        crop_batches.CROPS_AT_ONCE = before


def _facts(result: Segmentation) -> dict[str, object]:
    return {key: value for key, value in result.to_json().items() if key != "timings"}


def _agreement(one: Segmentation, other: Segmentation) -> float:
    return float(np.mean(one.label_map == other.label_map))
