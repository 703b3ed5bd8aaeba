"""MaskFormer as a proposer: about a hundred masks of the whole picture in one forward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ovseg_demo.errors import SettingsError
from ovseg_demo.proposals.base import Proposals, check_image
from ovseg_demo.proposals.maskformer.network import TextSpaceMaskFormer, prepare
from ovseg_demo.proposals.maskformer.weights import load_segmenter
from ovseg_demo.proposals.queries import Queries

SHORT_SIDE = 640
LONG_SIDE = 2560
DEMO_THRESHOLD = 0.35
_AT_ONCE = 16


class MaskFormerProposer:
    """Masks from the segmenter of a complete OVSeg file, with what it thinks of each.

    Attributes:
        fingerprint: differs from file to file, for whoever keeps proposals.

    Args:
        name: what the user chose.
        network: from `load_segmenter`.
        no_object: (D,) unit vector, from the same file.
        device: where the network is.
        mask_threshold: a pixel belongs to a mask strictly above it (published: 0.4 in the evaluation, 0.35 in
            the demo).
        short_side: shorter side in pixels at which a picture is worked on, unless the longer one then exceeds
            `LONG_SIDE`.
    """

    def __init__(
        self,
        name: str,
        network: TextSpaceMaskFormer,
        no_object: Tensor,
        *,
        device: torch.device,
        mask_threshold: float = DEMO_THRESHOLD,
        short_side: int = SHORT_SIDE,
    ) -> None:
        if not 0 <= mask_threshold < 1:
            raise SettingsError(f"The mask threshold is {mask_threshold}, but it must lie in 0 to 1.")
        self.name = name
        self.mask_threshold = mask_threshold
        self.short_side = short_side
        self._network = network.to(device)
        self._no_object: NDArray[np.float32] = no_object.cpu().numpy()
        self.fingerprint = hashlib.sha256(self._no_object.tobytes()).hexdigest()[:16]
        self._device = device

    def working_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture at the size at which the segmenter was trained; smaller ones are enlarged to it."""
        check_image(image)
        height, width = working_size(image.shape[0], image.shape[1], self.short_side)
        if (height, width) == image.shape[:2]:
            return image
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def stream(self, image: NDArray[np.uint8]) -> Generator[float, None, Proposals]:
        """See Proposer.stream; a picture of another size than `working_image` makes is resized on the way."""
        resized = self.working_image(image)
        yield 0.0
        with torch.inference_mode():
            pixels = prepare(torch.tensor(resized, device=self._device))
            features = self._network.features(pixels)
        yield 0.8
        with torch.inference_mode():
            mask_features = self._network.mask_features(features)
            embeddings, logits = self._network.heads(self._network.queries(features[-1]), mask_features)
            queries = Queries(
                logits=logits.float().cpu().numpy(),
                padded=(pixels.shape[2], pixels.shape[3]),
                inner=(resized.shape[0], resized.shape[1]),
                size=(image.shape[0], image.shape[1]),
                mask_threshold=self.mask_threshold,
                embeddings=embeddings.float().cpu().numpy(),
                no_object=self._no_object,
                index=np.arange(len(logits)),
            )
        yield 0.9
        proposals = proposals_of(queries)
        yield 1.0
        return proposals


def working_size(height: int, width: int, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """Height and width when the shorter side becomes `short_side` and the longer at most `LONG_SIDE`."""
    scale = short_side / min(height, width)
    if max(height, width) * scale > LONG_SIDE:
        scale = LONG_SIDE / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


@torch.inference_mode()
def proposals_of(queries: Queries) -> Proposals:
    """The masks with at least one pixel, large ones first, each with its query.

    A mask's quality is its mean certainty: that of the pixels it claims.
    """
    count = len(queries)
    masks = np.empty((count, *queries.size), dtype=np.bool_)
    quality = np.zeros(count, dtype=np.float32)
    for start in range(0, count, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        soft = queries.soft_masks(some)
        hard = soft > queries.mask_threshold
        certain = (soft * hard).flatten(1).sum(1) / hard.flatten(1).sum(1).clamp(min=1)
        masks[some], quality[some] = hard.numpy(), certain.numpy()
    area = np.count_nonzero(masks, axis=(1, 2))
    order = np.argsort(-area, kind="stable")
    order = order[area[order] > 0]
    found = Proposals.of(masks[order], quality[order])
    return replace(found, queries=replace(queries, index=order))


def load_maskformer(
    name: str,
    weights: Path,
    *,
    device: torch.device,
    mask_threshold: float = DEMO_THRESHOLD,
    short_side: int = SHORT_SIDE,
    decoder_heads: int | None = None,
) -> MaskFormerProposer:
    """The segmenter of a complete OVSeg file as a proposer.

    Args:
        name: what the user chose.
        weights: the file.
        device: where it runs.
        mask_threshold: see `MaskFormerProposer`.
        short_side: see `MaskFormerProposer`.
        decoder_heads: see `MaskFormerShape.of`.

    Raises:
        CheckpointError: see `load_segmenter`.
        SettingsError: the threshold is out of its range.
    """
    network, no_object = load_segmenter(weights, decoder_heads=decoder_heads)
    return MaskFormerProposer(
        name, network, no_object, device=device, mask_threshold=mask_threshold, short_side=short_side
    )
