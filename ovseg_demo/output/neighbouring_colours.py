"""Colours of one photo: classes whose regions touch can be told apart, also by colour-blind people.

A name has its own colour (`ovseg_demo.output.palette`). Where two classes that touch would look alike, one of
them takes another shade of its hue, or else another hue; both arms of a comparison use the same colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.output.palette import HUES, assignment_order
from ovseg_demo.result import Segmentation

__all__ = ["OPACITIES", "apart", "separate_colours", "touching"]

Floats = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB becomes for normal vision, protanopia,
# deuteranopia and tritanopia.
_VISIONS = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)

OPACITIES = (0.25, 0.55, 0.8, 1.0)
"""Of the colours over the photo: where the distance is measured."""

_LEAST_APART = 25.0
"""CIELAB distance of classes that touch, for each kind of eye, times the opacity."""
_LEAST_DISTINCT = 12.0
"""CIELAB distance of a changed colour from those of all other classes."""

_COUNTED_SIDE = 256
"""Longer side at most, in pixels, of the maps in which borders are counted."""
_GAP = 3
"""Widest unassigned strip, in pixels of these maps, across which classes still touch."""
_LEAST_BORDER = 3
"""Pixels of these maps."""

# Towards black and white, by this share.
_SHADES = ((0, 0.3), (255, 0.35), (0, 0.5), (255, 0.55))


def separate_colours(results: Sequence[Segmentation]) -> tuple[Segmentation, ...]:
    """The results with colours in which classes that touch, in any of them, are apart.

    Args:
        results: arms of one photo with the same words, in the same order.

    Returns:
        The same results but for `ClassResult.colour`; unchanged where nothing looks alike.
    """
    if not results:
        return ()
    classes = results[0].classes
    colours = [np.array(c.colour, np.float64) for c in classes]
    means = _mean_colours(results)
    neighbours = touching(results)
    placed: list[int] = []
    for i in assignment_order([c.name for c in classes]):
        near = [k for k in placed if (i, k) in neighbours]
        if near:
            others = [colour for k, colour in enumerate(colours) if k != i]
            colours[i] = _choose(colours[i], means[i], [colours[k] for k in near], means[near], others)
        placed.append(i)
    chosen = [tuple(int(value) for value in colour) for colour in colours]
    return tuple(
        replace(
            result,
            classes=tuple(
                replace(c, colour=(red, green, blue))
                for c, (red, green, blue) in zip(result.classes, chosen, strict=True)
            ),
        )
        for result in results
    )


def apart(first: Floats, first_photo: Floats, second: Floats, second_photo: Floats) -> Floats:
    """How far colours are apart over a photo, for the eye and the opacity where they are nearest.

    Args:
        first: (..., 3) sRGB, 0..255.
        first_photo: (..., 3) what lies below it.
        second: (..., 3) sRGB.
        second_photo: (..., 3) what lies below it.

    Returns:
        (...) CIELAB distances, each divided by its opacity.
    """
    first, first_photo, second, second_photo = np.broadcast_arrays(first, first_photo, second, second_photo)
    distances = [
        np.linalg.norm(
            _seen(first_photo + share * (first - first_photo))
            - _seen(second_photo + share * (second - second_photo)),
            axis=-1,
        ).min(axis=0)
        / share
        for share in OPACITIES
    ]
    return np.asarray(np.min(distances, axis=0))


def touching(results: Sequence[Segmentation]) -> frozenset[tuple[int, int]]:
    """Positions of the classes whose areas touch in any of the results, each pair in both orders."""
    counts: dict[tuple[int, int], int] = {}
    for result in results:
        labels = _small(result).astype(np.int64)
        for shift in range(1, _GAP + 1):
            for one, other in ((labels[shift:], labels[:-shift]), (labels[:, shift:], labels[:, :-shift])):
                meet = (one != other) & (one > 0) & (other > 0)
                pairs = np.sort(np.stack([one[meet], other[meet]]), axis=0)
                kinds, times = np.unique(pairs, axis=1, return_counts=True)
                for (a, b), count in zip(kinds.T.tolist(), times.tolist(), strict=True):
                    counts[a - 1, b - 1] = counts.get((a - 1, b - 1), 0) + count
    found = [pair for pair, count in counts.items() if count >= _LEAST_BORDER]
    return frozenset([*found, *((b, a) for a, b in found)])


def _choose(
    own: Floats, mean: Floats, near: Sequence[Floats], near_means: Floats, others: Sequence[Floats]
) -> Floats:
    """The first colour that is apart from those it touches: its own, shades of it, the nearest hues."""
    hues = np.array(HUES, np.float64)
    lab = _seen(np.concatenate([own[None], hues]))[0]
    hues = hues[np.argsort(np.linalg.norm(lab[1:] - lab[0], axis=1), kind="stable")]
    candidates = np.concatenate([own[None], _shades(own[None]), hues, _shades(hues)])
    least = np.min(
        [apart(candidates, mean, colour, below) for colour, below in zip(near, near_means, strict=True)],
        axis=0,
    )
    seen, taken = _seen(candidates), _seen(np.stack(others))
    distinct = np.linalg.norm(seen[:, :, None] - taken[:, None], axis=-1).min(axis=(0, 2)) >= _LEAST_DISTINCT
    distinct[0] = True  # its own colour is its own, whatever the others are
    good = np.flatnonzero(distinct & (least >= _LEAST_APART))
    best = int(good[0]) if len(good) else int(np.argmax(np.where(distinct, least, -1.0)))
    return np.asarray(candidates[best])


def _shades(colours: Floats) -> Floats:
    """(n, 3) -> (m, 3), all shades of the first colour before those of the second."""
    shades = [np.round(colours + share * (target - colours)) for target, share in _SHADES]
    return np.stack(shades, axis=1).reshape(-1, 3)


def _mean_colours(results: Sequence[Segmentation]) -> Floats:
    """(C, 3) mean of the photo below each class in all results; grey where a class is nowhere."""
    count = len(results[0].classes)
    sums, pixels = np.zeros((count + 1, 3)), np.zeros(count + 1)
    for result in results:
        step = _step(result)
        labels, photo = _small(result).ravel(), result.image[::step, ::step].reshape(-1, 3)
        pixels += np.bincount(labels, minlength=count + 1)
        for channel in range(3):
            sums[:, channel] += np.bincount(labels, weights=photo[:, channel], minlength=count + 1)
    means = np.full((count, 3), 128.0)
    seen = pixels[1:] > 0
    means[seen] = sums[1:][seen] / pixels[1:][seen, None]
    return means


def _step(result: Segmentation) -> int:
    return max(1, -(-int(max(result.label_map.shape)) // _COUNTED_SIDE))


def _small(result: Segmentation) -> npt.NDArray[np.uint16]:
    step = _step(result)
    return result.label_map[::step, ::step]


def _seen(rgb: Floats) -> Floats:
    """(..., 3) sRGB 0..255 -> (4, ..., 3) CIELAB (D65) as each kind of eye sees it."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.stack([linear @ vision.T for vision in _VISIONS]), 0, 1)
    lab = cv2.cvtColor(seen.reshape(-1, 1, 3).astype(np.float32), cv2.COLOR_LRGB2Lab)
    return np.asarray(lab.reshape(seen.shape), dtype=np.float64)
