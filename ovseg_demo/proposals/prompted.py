"""Masks for a click or a box: an ability that some proposers have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ovseg_demo.errors import CorrectionError, ProposalError
from ovseg_demo.proposals.base import Proposer

Point = tuple[float, float, bool]
"""x, y in pixels of the photo, and whether the region holds that point; False = it must not."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the photo."""

MAX_POINTS = 64
"""Most points of one prompt."""


@dataclass(frozen=True, eq=False)
class PromptedMasks:
    """What a proposer makes of clicks or a box.

    Attributes:
        masks: (K, H, W) bool at the photo's own size, the best first, K from 1 to 3; every mask has a pixel.
        quality: (K,) float32 in 0..1, the predicted IoU of each mask with what is meant.
    """

    masks: npt.NDArray[np.bool_]
    quality: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prompt:
    """Checked clicks and box, as shares of the photo's width and height.

    Attributes:
        points: (N, 2) float32 x, y in 0..1.
        positive: (N,) bool.
        box: (4,) float32 left, top, right, bottom in 0..1, or None.
    """

    points: npt.NDArray[np.float32]
    positive: npt.NDArray[np.bool_]
    box: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, points: Sequence[Point], box: Box | None, *, width: int, height: int) -> Prompt:
        """Check what a person clicked and dragged.

        Args:
            points: x, y in pixels of the photo and whether the region holds the point; maybe none.
            box: left, top, right, bottom in pixels of the photo.
            width: of the photo in pixels.
            height: the same.

        Raises:
            CorrectionError: there is neither a box nor a point that the region holds, a point or the whole
                box lies outside the photo, the box has no area, or there are too many points.
        """
        if len(points) > MAX_POINTS:
            raise CorrectionError(
                f"There are {len(points)} clicks and at most {MAX_POINTS} are read; begin anew."
            )
        numbers = _numbers([(x, y) for x, y, _ in points], 2)
        positive = np.array([bool(inside) for _, _, inside in points], dtype=np.bool_)
        for x, y in numbers:
            if not (0 <= x <= width and 0 <= y <= height):
                raise CorrectionError(
                    f"The click {x:.0f}, {y:.0f} lies outside the photo of {width} x {height}; click on it."
                )
        scale = np.array([width, height], dtype=np.float64)
        corners = None
        if box is not None:
            left, top, right, bottom = _numbers([box], 4)[0]
            left, right = (float(np.clip(v, 0, width)) for v in sorted((left, right)))
            top, bottom = (float(np.clip(v, 0, height)) for v in sorted((top, bottom)))
            if right - left < 1 or bottom - top < 1:
                raise CorrectionError(
                    f"The box {left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f} has no area in the photo of "
                    f"{width} x {height}; drag one of at least a pixel."
                )
            corners = np.array([left, top, right, bottom] / np.tile(scale, 2), dtype=np.float32)
        elif not positive.any():
            raise CorrectionError(
                "There is no click on the region itself; click on it, or drag a box around it."
            )
        return cls((numbers / scale).astype(np.float32), positive, corners)


def _numbers(rows: Sequence[Sequence[float]], columns: int) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array(rows, dtype=np.float64).reshape(-1, columns)
    except (TypeError, ValueError):
        raise CorrectionError(f"A click or a box is given by numbers, not by {str(rows)[:60]!r}.") from None
    if not np.isfinite(numbers).all():
        raise CorrectionError("A click or a box is given by finite numbers; NaN and infinity are no places.")
    return numbers


@runtime_checkable
class PromptableProposer(Proposer, Protocol):
    """A proposer that also finds the region that is meant by clicks or a box.

    Its `Proposals` carry `embedding`, so that a prompt on a photo whose proposals are there costs little.
    """

    def embed_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode one (H, W, 3) uint8 RGB image: (C, h, w) float32, what `prompt` takes.

        Raises:
            ProposalError: the image has the wrong type or shape, or no pixel.
        """
        ...

    def prompt(
        self, embedding: npt.NDArray[np.float32], prompt: Prompt, size: tuple[int, int]
    ) -> PromptedMasks:
        """The masks that clicks and a box may mean, the best first.

        Args:
            embedding: from `embed_image`.
            prompt: where.
            size: height and width of the masks.

        Raises:
            ProposalError: no mask of the prompt has a pixel.
        """
        ...


def promptable(proposer: Any) -> PromptableProposer:
    """The proposer, if it can be prompted.

    Raises:
        ProposalError: it finds the regions of whole photos only.
    """
    if not isinstance(proposer, PromptableProposer):
        raise ProposalError(
            f"{proposer.name} finds the regions of whole photos only and takes no clicks or boxes; "
            "choose mobile-sam or another SAM."
        )
    return proposer
