"""What a mask proposer is: an image in, class-agnostic masks out.

A proposer is a generator. After each piece of work it yields its progress, optionally with the masks found so
far; at the end it returns all masks. The caller stops the work by closing the generator.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ovseg_demo.errors import ProposalError
from ovseg_demo.imaging import resize_to_side
from ovseg_demo.progress import Progress, map_steps, run_to_end

if TYPE_CHECKING:
    from ovseg_demo.proposals.queries import Queries


@dataclass(frozen=True)
class Proposals:
    """The masks of one image, large ones first. K may be 0.

    Attributes:
        masks: (K, H, W) bool, every mask has at least one pixel.
        quality: (K,) float32 in 0..1, the predicted IoU of each mask with a real segment.
        boxes: (K, 4) int32 left, top, right, bottom in pixels; right and bottom are exclusive.
        queries: of a segmenter that classifies its own masks; None for other proposers.
        embedding: (C, h, w) float32 encoding of the image, of a proposer that takes clicks and boxes; None
            for other proposers.
    """

    masks: npt.NDArray[np.bool_]
    quality: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.int32]
    queries: Queries | None = None
    embedding: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.masks)
        _check_masks(self.masks)
        if self.quality.shape != (count,) or self.boxes.shape != (count, 4):
            raise ProposalError(
                f"{count} masks need {count} qualities and boxes, "
                f"not arrays of shape {self.quality.shape} and {self.boxes.shape}."
            )
        if self.queries is not None and self.queries.index.shape != (count,):
            raise ProposalError(f"{count} masks need {count} queries, not {len(self.queries.index)}.")

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def area_fraction(self) -> npt.NDArray[np.float64]:
        """(K,) share of the image that each mask covers, 0..1."""
        height, width = self.masks.shape[1:]
        shares: npt.NDArray[np.float64] = pixel_counts(self.masks) / (height * width)
        return shares

    def best(self, count: int) -> Proposals:
        """At most `count` of the masks, still large ones first.

        Masks rank by quality times the fourth root of their area: a larger mask of equal quality is
        preferred, and area outweighs quality only a little.
        """
        if len(self) <= count:
            return self
        area = pixel_counts(self.masks)
        kept = np.sort(np.argsort(-self.quality * area**0.25, kind="stable")[:count])
        queries = self.queries and self.queries.only(kept)
        return Proposals(self.masks[kept], self.quality[kept], self.boxes[kept], queries, self.embedding)

    @classmethod
    def empty(cls, height: int, width: int) -> Proposals:
        """No masks for an image of this size in pixels."""
        return cls(
            masks=np.zeros((0, height, width), dtype=np.bool_),
            quality=np.zeros(0, dtype=np.float32),
            boxes=np.zeros((0, 4), dtype=np.int32),
        )

    @classmethod
    def of(cls, masks: npt.NDArray[np.bool_], quality: npt.NDArray[np.float32]) -> Proposals:
        """Drop empty masks, compute the boxes and sort by area.

        Args:
            masks: (K, H, W) bool.
            quality: (K,) float, clipped to 0..1.
        """
        rows, columns = np.asarray(masks.any(axis=2)), np.asarray(masks.any(axis=1))
        area = pixel_counts(masks)
        order = np.argsort(-area, kind="stable")
        order = order[area[order] > 0]
        if len(order) == 0:
            return cls.empty(masks.shape[1], masks.shape[2])
        top, bottom = _extent(rows[order])
        left, right = _extent(columns[order])
        return cls(
            masks=np.ascontiguousarray(masks[order]),
            quality=np.clip(quality[order], 0, 1).astype(np.float32),
            boxes=np.stack([left, top, right, bottom], axis=1).astype(np.int32),
        )


def _check_masks(masks: npt.NDArray[np.bool_]) -> None:
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ProposalError(
            f"Masks must be a (K, H, W) bool array, not {masks.dtype} of shape {masks.shape}."
        )


def pixel_counts(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Number of pixels of each of (K, H, W) masks; `count_nonzero` is fast on one mask at a time only."""
    return np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)


def _extent(occupied: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and last-plus-one true position per row of a (K, L) array without all-false rows."""
    first = occupied.argmax(axis=1)
    last = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return first, last


@dataclass(frozen=True)
class ProposalStep:
    """One step of a proposer that also yields masks before the end.

    Attributes:
        fraction: share of the work that is done, 0..1.
        masks: (k, h, w) bool, found since the step before, of any size; None where there is nothing to tell.
            They are raw: some are duplicates, and some are not among the proposals at the end.
    """

    fraction: float
    masks: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.masks is not None:
            _check_masks(self.masks)


Steps = Generator["float | ProposalStep", None, Proposals]
"""What `Proposer.stream` gives."""


class Proposer(Protocol):
    """A source of masks: a network, stored masks, the truth of a data set."""

    @property
    def name(self) -> str:
        """What the user chose, for instance "mobile-sam"."""
        ...

    def stream(self, image: npt.NDArray[np.uint8]) -> Steps:
        """Propose masks for one RGB image, (H, W, 3) uint8.

        Yields the fraction done, 0..1 and never falling, as a number or with the masks found since the step
        before; returns the proposals at the image's own size. Closing the generator stops the work.

        Raises:
            ProposalError: the image has the wrong type or shape, or no pixel.
        """
        ...


@runtime_checkable
class SizedProposer(Proposer, Protocol):
    """A proposer that was trained at one size; crops are cut at that size too."""

    def working_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A (H, W, 3) picture at that size."""
        ...


def working_image(
    proposer: Proposer, image: npt.NDArray[np.uint8], max_side_px: int
) -> npt.NDArray[np.uint8]:
    """Resize a photo to the size at which its proposals and crops are made.

    Args:
        proposer: may have a size of its own.
        image: (H, W, 3) uint8.
        max_side_px: longer side at most, for proposers that take any size; smaller photos stay as they are.
    """
    if isinstance(proposer, SizedProposer):
        return proposer.working_image(image)
    return resize_to_side(image, max_side_px)


def proposal_progress(steps: Steps, start: float, end: float) -> Generator[Progress, None, Proposals]:
    """What `Proposer.stream` gives, as progress of a request in which it takes from `start` to `end`."""

    def told(step: float | ProposalStep) -> Progress:
        found = step if isinstance(step, ProposalStep) else ProposalStep(step)
        return Progress("propose", start + (end - start) * found.fraction, "Finding regions", found.masks)

    return (yield from map_steps(steps, told))


def propose(proposer: Proposer, image: npt.NDArray[np.uint8]) -> Proposals:
    """Run a proposer to its end on one (H, W, 3) uint8 RGB image."""
    return run_to_end(proposer.stream(image))


def check_image(image: npt.NDArray[np.uint8]) -> None:
    """Refuse anything but a (H, W, 3) uint8 array with at least one pixel.

    Raises:
        ProposalError: says what was found instead.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ProposalError(f"Proposals need a uint8 RGB array of shape (height, width, 3), not {found}.")
    if image.size == 0:
        raise ProposalError(f"Proposals need at least one pixel, and the image has shape {image.shape}.")
