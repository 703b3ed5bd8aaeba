"""Masks for a whole image from point prompts: coarse everywhere, then fine where nothing good covers it.

SAM's automatic generator prompts a dense grid and drops most of its masks as duplicates. Here a coarse grid
comes first, without the points around which several prompts have found good masks already. Later points lie
only in cells that no good mask covers; they are chosen after each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.compute.workers import parallel_map, shares, workers
from ovseg_demo.devices import in_batches
from ovseg_demo.errors import ProposalError
from ovseg_demo.proposals.base import Proposals, ProposalStep, Steps, check_image
from ovseg_demo.proposals.grid import grid_shape, spread_points
from ovseg_demo.proposals.prompted import Prompt, PromptedMasks
from ovseg_demo.proposals.selection import (
    mask_iou,
    non_max_suppression,
    stability,
    uncovered_patches,
    upsample,
)

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
_ENCODER_WORTH = 24  # prompts that take about as long as encoding the image, for the progress bar


@dataclass(frozen=True)
class PointPromptConfig:
    """How many points to try and which masks to keep."""

    coarse: int = 64
    """Points of the first grid, everywhere."""
    refine: int = 80
    """At most this many more points, where no good mask covers the image."""
    enough: int = 12
    """A point of the first grid is left out where so many prompts have found a good mask around it."""
    batch: int = 8
    """Number of prompts after which later points are chosen again."""
    min_quality: float = 0.75
    """Least predicted IoU of a kept mask."""
    min_stability: float = 0.7
    """Least stability of a kept mask under a shift of its threshold; a higher value loses true segments."""
    max_overlap: float = 0.8
    """Of two masks with a higher IoU only the better one is kept."""
    min_area_fraction: float = 0.0002
    """Smaller masks are dropped."""
    max_prompted_overlap: float = 0.9
    """Of two masks for one click or box with a higher IoU only the better one is offered."""
    fill_area_fraction: float = 0.005
    """Leftover patches at least this large become proposals of low quality; 1 turns this off."""


POINT_PROMPT_CONFIGS: dict[str, PointPromptConfig] = {
    "low": PointPromptConfig(coarse=36, refine=16),
    "normal": PointPromptConfig(),
    "high": PointPromptConfig(coarse=144, enough=27, refine=144),
}


class Decoder(Protocol):
    """Prompts on one embedded image: SAM's `decoder.PointDecoder`, or `sam2.Sam2Decoder`.

    What `prepare` returns has the `height` and `width` of the embedding, what the next two return the (B, M)
    `quality` of each prompt's masks; the classes have the shapes.
    """

    dtype: torch.dtype

    def prepare(self, embedding: Tensor) -> Any: ...
    def decode(self, image: Any, points: Tensor) -> Any: ...
    def decode_prompt(self, image: Any, points: Tensor, positive: Tensor, box: Tensor | None) -> Any: ...
    def masks(self, decoded: Any, wanted: Tensor) -> Tensor: ...
    def edge_masks(self, decoded: Any, wanted: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Candidates:
    """Masks of a batch of prompts that passed the thresholds.

    Attributes:
        logits: (K, h, w) float32, on the device.
        score: (K,) float32.
        prompt: (K,) int64, which prompt of the batch each is from, in rising order.
    """

    logits: Tensor
    score: npt.NDArray[np.float32]
    prompt: npt.NDArray[np.int64]

    def masks(self) -> npt.NDArray[np.bool_]:
        """(K, h, w) bool."""
        return np.asarray((self.logits > 0).cpu().numpy())


class PointProposer:
    """Proposals of one SAM-like model.

    Args:
        name: what the user chose.
        encode: normalised pixels (1, 3, h, w) -> embedding (1, C, h / 16, w / 16).
        decoder: prompts on such an embedding.
        side: longer side in pixels of the encoder's input, a multiple of 16.
        plan: density and thresholds.
        device: where encoder and decoder live.
        square: whether the encoder takes pictures stretched to a square.
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[Tensor], Tensor],
        decoder: Decoder,
        *,
        side: int,
        plan: PointPromptConfig,
        device: torch.device,
        square: bool = False,
    ) -> None:
        self.name = name
        self._square = square
        self.weights_sha256 = ""
        self.density = ""
        """Name of the plan, where it has one."""
        self.plan = plan
        self.side = side
        self._encode = encode
        self.decoder = decoder
        self.device = device
        self.dtype = decoder.dtype

    def stream(self, image: npt.NDArray[np.uint8]) -> Steps:
        """See Proposer.stream: one step after the encoder and one after each batch of prompts.

        Masks of steps have the decoder's own size, a quarter of the encoder's input.
        """
        check_image(image)
        height, width = image.shape[:2]
        total = _ENCODER_WORTH + self.plan.coarse + self.plan.refine
        yield 0.0
        with torch.inference_mode():
            embedding = self._encode(self._pixels(image))
            tokens = self.decoder.prepare(embedding)
        done = _ENCODER_WORTH
        yield done / total

        found: list[_Candidates] = []
        # Number of prompts that have a good mask around each cell.
        hits = np.zeros((4 * tokens.height, 4 * tokens.width), dtype=np.uint16)
        for fine in (False, True):
            count = self.plan.refine if fine else self.plan.coarse
            points = spread_points(*grid_shape(4 * self.plan.coarse if fine else count, height, width))
            while count > 0 and len(points) > 0:
                points = points[_at(hits, points) < (1 if fine else self.plan.enough)]
                # On a GPU all coarse points are one batch: they do not depend on each other.
                batch = self.plan.batch if fine or self.device.type == "cpu" else count
                now, points = np.split(points, [min(batch, count)])
                if len(now) == 0:
                    break
                with torch.inference_mode():
                    new = self._prompt_all(tokens, now)
                masks = [part.masks() for part in new]
                found += new
                for part, own in zip(new, masks, strict=True):
                    for prompt in np.unique(part.prompt):
                        hits += own[part.prompt == prompt].any(axis=0)
                count -= len(now)
                done += len(now)
                yield ProposalStep(min(done / total, 0.99), np.concatenate(masks))
        with torch.inference_mode():
            proposals = self._finish(found, hits > 0, height, width)
        return replace(proposals, embedding=embedding[0].float().cpu().numpy())

    def embed_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See PromptableProposer.embed_image."""
        check_image(image)
        with torch.inference_mode():
            return np.asarray(self._encode(self._pixels(image))[0].float().cpu().numpy())

    def prompt(
        self, embedding: npt.NDArray[np.float32], prompt: Prompt, size: tuple[int, int]
    ) -> PromptedMasks:
        """See PromptableProposer.prompt.

        A single click may mean a part, an object or a whole: the three masks for it. A box or several clicks
        are told by SAM's mask for prompts without doubt, the others come behind it.
        """
        with torch.inference_mode():
            tokens = self.decoder.prepare(torch.from_numpy(embedding)[None].to(self.device))
            scale = torch.tensor([tokens.width * 16, tokens.height * 16], device=self.device)
            # The prompt encoder adds half a pixel, as for integer pixel positions.
            points = torch.from_numpy(prompt.points).to(self.device) * scale - 0.5
            positive = torch.from_numpy(prompt.positive).to(self.device)
            box = None
            if prompt.box is not None:
                box = torch.from_numpy(prompt.box).to(self.device) * scale.repeat(2) - 0.5
            decoded = self.decoder.decode_prompt(tokens, points, positive, box)
            logits = self.decoder.masks(decoded, torch.ones_like(decoded.quality, dtype=torch.bool))
            quality = decoded.quality[0].clamp(0, 1).cpu().numpy()
            alone = box is None and len(points) == 1
            order = np.argsort(-quality[1:], kind="stable") + 1
            if not alone:
                order = np.concatenate([[0], order])
            logits, quality = logits[order.copy()], quality[order]
            kept = _distinct(logits > 0, self.plan.max_prompted_overlap)[:3]
            masks = upsample(logits[kept], *size)
        some = masks.any(axis=(1, 2))
        if not some.any():
            raise ProposalError("No region was found there; click on another spot, or drag a box.")
        return PromptedMasks(masks[some], quality[kept][some].astype(np.float32))

    def _pixels(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """(1, 3, h, w) float32, normalised; the longer side, or both, is `side`; both are multiples of 16."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        target = [max(16, round(length * scale / 16) * 16) for length in (height, width)]
        if self._square:
            target = [self.side, self.side]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, target, mode="bilinear", antialias=True).to(self.device)
        mean = torch.tensor(PIXEL_MEAN, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(PIXEL_STD, device=self.device).view(1, 3, 1, 1)
        return (pixels - mean) / std

    def _prompt_all(self, tokens: Any, points: npt.NDArray[np.float32]) -> list[_Candidates]:
        """Decode (B, 2) points in 0..1, a share per core; in smaller parts where memory is short."""
        at_once = workers(self.device)
        full = -(-self.plan.batch // at_once) if self.device.type == "cpu" else 0

        def prompt(share: slice) -> list[_Candidates]:
            own, size = points[share], share.stop - share.start

            def some_of_own(some: slice) -> _Candidates:
                # Parts are smaller only where memory is short, and then nothing is added.
                whole = some.stop - some.start == size
                return self._prompt(tokens, own[some], full if whole else 0)

            return list(
                in_batches(
                    some_of_own,
                    size,
                    size,
                    what="finding regions",
                    advice="choose a smaller proposer",
                )
            )

        pieces = shares(len(points), at_once, at_most=len(points))
        return [found for part in parallel_map(prompt, pieces, self.device) for found in part]

    def _prompt(self, tokens: Any, points: npt.NDArray[np.float32], full: int) -> _Candidates:
        """Decode one batch of (B, 2) points in 0..1 and keep what passes the thresholds.

        A batch of fewer than `full` points is filled up: oneDNN writes a program for each number of prompts,
        which takes longer than decoding some more.
        """
        plan, count = self.plan, len(points)
        points = np.concatenate([points, points[-1:].repeat(max(full - count, 0), axis=0)])
        scale = torch.tensor([tokens.width * 16, tokens.height * 16], device=self.device)
        # The prompt encoder adds half a pixel, as for integer pixel positions.
        decoded = self.decoder.decode(tokens, torch.from_numpy(points).to(self.device) * scale - 0.5)
        promising = decoded.quality > plan.min_quality
        promising[count:] = False
        if not promising.any():
            empty = torch.zeros(0, 4 * tokens.height, 4 * tokens.width, device=self.device)
            return _Candidates(empty, np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64))
        logits = self.decoder.edge_masks(decoded, promising)
        quality = decoded.quality[promising]
        steady = stability(logits)
        cells = (logits > 0).flatten(1).sum(1)
        keep = (steady > plan.min_stability) & (cells >= plan.min_area_fraction * logits[0].numel())
        prompt = promising.nonzero()[:, 0]
        return _Candidates(logits[keep], (quality * steady)[keep].cpu().numpy(), prompt[keep].cpu().numpy())

    def _finish(
        self, found: list[_Candidates], covered: npt.NDArray[np.bool_], height: int, width: int
    ) -> Proposals:
        """Remove duplicates, resize the other masks and add the uncovered patches."""
        logits = torch.cat([part.logits for part in found])
        score = np.concatenate([part.score for part in found])
        kept = non_max_suppression(mask_iou(logits > 0), score, self.plan.max_overlap)
        patches = uncovered_patches(covered, int(self.plan.fill_area_fraction * covered.size))
        filled = torch.from_numpy(patches).to(self.device) * 2.0 - 1.0
        masks = upsample(torch.cat([logits[kept], filled]), height, width)
        quality = np.concatenate([score[kept], np.full(len(patches), 0.3, dtype=np.float32)])
        return Proposals.of(masks, quality)


def _distinct(masks: Tensor, most_alike: float) -> list[int]:
    """Of (K, h, w) masks, the best first: those with a pixel that do not repeat a better one."""
    iou, some = mask_iou(masks), masks.flatten(1).any(dim=1).cpu().numpy()
    kept: list[int] = []
    for k in np.flatnonzero(some):
        if not kept or iou[k, kept].max() <= most_alike:
            kept.append(int(k))
    return kept


def _at(hits: npt.NDArray[np.uint16], points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The value of a (h, w) map at each (P, 2) point in 0..1: (P,)."""
    height, width = hits.shape
    columns = np.minimum((points[:, 0] * width).astype(int), width - 1)
    rows = np.minimum((points[:, 1] * height).astype(int), height - 1)
    return np.asarray(hits[rows, columns])
