"""MaskFormer as a proposer: about a hundred masks of the whole picture in one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from ovseg_demo.proposals.maskformer.config import DeepLabResNetConfig
from ovseg_demo.proposals.maskformer.network import MaskFormerNetwork, prepare
from ovseg_demo.proposals.maskformer.weights import load_segmenter
from ovseg_demo.proposals.queries import Queries, SoftMasks

SHORT_SIDE, LONG_SIDE = 640, 2560
"""Working size of the published system with a Swin."""
RESNET_SHORT_SIDE, RESNET_LONG_SIDE = 512, 2048
"""Of the one with a ResNet."""
DEMO_THRESHOLD = 0.35


class QueryProposer(ABC):
    """A MaskFormer as a proposer; subclasses rate its masks.

    Attributes:
        name: what the user chose.
        mask_threshold: a pixel belongs to a mask strictly above it.
        short_side: shorter side in pixels at which a picture is worked on, unless the longer one then exceeds
            `long_side`.
        weights_sha256: of the file the weights came from, "" if they came from none.

    Raises:
        SettingsError: the threshold is out of its range.
    """

    def __init__(
        self,
        name: str,
        network: MaskFormerNetwork,
        *,
        device: torch.device,
        mask_threshold: float,
        short_side: int,
        long_side: int,
    ) -> None:
        if not 0 <= mask_threshold < 1:
            raise SettingsError(f"The mask threshold is {mask_threshold}, but it must lie in 0 to 1.")
        self.name = name
        self.weights_sha256 = ""
        self.mask_threshold = mask_threshold
        self.short_side = short_side
        self.long_side = long_side
        self._network = network.to(device)
        self.device = device
        self.dtype = torch.float32

    def working_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture at the size at which the segmenter was trained; smaller ones are enlarged to it."""
        check_image(image)
        height, width = working_size(image.shape[0], image.shape[1], self.short_side, self.long_side)
        if (height, width) == image.shape[:2]:
            return image
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def stream(self, image: NDArray[np.uint8]) -> Generator[float, None, Proposals]:
        """See Proposer.stream; a picture of another size than `working_image` makes is resized."""
        resized = self.working_image(image)
        yield 0.0
        with torch.inference_mode():
            pixels = prepare(torch.tensor(resized, device=self.device))
            features = self._network.features(pixels)
        yield 0.8
        with torch.inference_mode():
            mask_features = self._network.mask_features(features)
            classes, logits = self._network.heads(self._network.queries(features[-1]), mask_features)
        soft = SoftMasks(
            logits=logits.float().cpu().numpy(),
            padded=(pixels.shape[2], pixels.shape[3]),
            inner=(resized.shape[0], resized.shape[1]),
            size=(image.shape[0], image.shape[1]),
        )
        yield 0.9
        proposals = self.proposals(soft, classes.float().cpu())
        yield 1.0
        return proposals

    @abstractmethod
    def proposals(self, soft: SoftMasks, classes: Tensor) -> Proposals:
        """Select and rate the masks.

        Args:
            soft: N masks.
            classes: (N, D) output of the class head.
        """


class MaskFormerProposer(QueryProposer):
    """The segmenter of a complete OVSeg file: masks, and the embedding of each query in the text space.

    A mask's quality is its certainty, the mean of the soft mask inside the mask. The probability of "no
    object" needs a vocabulary.

    Args:
        name: what the user chose.
        network: from `load_segmenter`.
        no_object: (D,) unit vector, from the same file.
        device: where it runs.
        mask_threshold: published: 0.4 in the evaluation, 0.35 in the demo.
        short_side: see `QueryProposer`.
        long_side: see `QueryProposer`.
    """

    def __init__(
        self,
        name: str,
        network: MaskFormerNetwork,
        no_object: Tensor,
        *,
        device: torch.device,
        mask_threshold: float = DEMO_THRESHOLD,
        short_side: int = SHORT_SIDE,
        long_side: int = LONG_SIDE,
    ) -> None:
        super().__init__(
            name,
            network,
            device=device,
            mask_threshold=mask_threshold,
            short_side=short_side,
            long_side=long_side,
        )
        self._no_object: NDArray[np.float32] = no_object.cpu().numpy()

    def proposals(self, soft: SoftMasks, classes: Tensor) -> Proposals:
        """The masks with at least one pixel, each with its query."""
        masks, certain = soft.hard_masks(self.mask_threshold)
        order = by_area(masks)
        found = Proposals.of(masks[order], certain[order])
        queries = Queries(
            soft.logits,
            soft.padded,
            soft.inner,
            soft.size,
            mask_threshold=self.mask_threshold,
            embeddings=classes.numpy(),
            no_object=self._no_object,
            index=order,
        )
        return replace(found, queries=queries)


def by_area(masks: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Which of (N, H, W) masks have a pixel, large ones first: the order of `Proposals.of`."""
    area = np.count_nonzero(masks, axis=(1, 2))
    order: NDArray[np.intp] = np.argsort(-area, kind="stable")
    return order[: np.count_nonzero(area)]


def working_size(
    height: int, width: int, short_side: int = SHORT_SIDE, long_side: int = LONG_SIDE
) -> tuple[int, int]:
    """Height and width when the shorter side becomes `short_side` and the longer at most `long_side`."""
    scale = short_side / min(height, width)
    if max(height, width) * scale > long_side:
        scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def load_maskformer(
    name: str, weights: Path, *, device: torch.device, mask_threshold: float = DEMO_THRESHOLD
) -> MaskFormerProposer:
    """Load the segmenter of a complete OVSeg file as a proposer.

    Args:
        name: what the user chose.
        weights: the file.
        device: where it runs.
        mask_threshold: see `MaskFormerProposer`.

    Raises:
        CheckpointError: see `load_segmenter`.
        SettingsError: the threshold is out of its range.
    """
    network, no_object = load_segmenter(weights)
    has_resnet = isinstance(network.config.backbone, DeepLabResNetConfig)
    return MaskFormerProposer(
        name,
        network,
        no_object,
        device=device,
        mask_threshold=mask_threshold,
        short_side=RESNET_SHORT_SIDE if has_resnet else SHORT_SIDE,
        long_side=RESNET_LONG_SIDE if has_resnet else LONG_SIDE,
    )
