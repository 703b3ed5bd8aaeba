"""From what the merge decides to facts about classes and regions, in photo pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.merging import Merged
from ovseg_demo.naming.classifier import PhotoAnalysis
from ovseg_demo.output.palette import assign_colours
from ovseg_demo.proposals import Proposals, Proposer
from ovseg_demo.result import Arm, ClassResult, RegionResult, Segmentation
from ovseg_demo.vocabulary import Vocabulary


def segmentation(
    photo: PhotoAnalysis,
    arm: Arm,
    vocabulary: Vocabulary,
    merged: Merged,
    *,
    timings: Mapping[str, float],
    models: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Segmentation:
    """The result of one arm, its maps at the photo's own size."""
    label_map, region_map = (to_size(m, photo.image) for m in (merged.label_map, merged.region_map))
    return Segmentation(
        image=photo.image,
        label_map=label_map,
        region_map=region_map,
        classes=class_results(vocabulary, merged, label_map),
        regions=region_results(photo.proposals, photo.image.shape, vocabulary, merged),
        timings=timings,
        models=models,
        settings=settings,
        arm=arm,
        masks=photo.proposals.masks,
    )


def class_results(
    vocabulary: Vocabulary, merged: Merged, label_map: NDArray[np.uint16]
) -> tuple[ClassResult, ...]:
    """Facts about each class of the vocabulary; areas are counted on the (H, W) label map of the photo."""
    pixels = np.bincount(label_map.ravel(), minlength=len(vocabulary) + 1)
    colours = assign_colours(vocabulary.names)
    return tuple(
        ClassResult(
            name=item.name,
            synonyms=item.synonyms,
            index=i + 1,
            colour=colours[i],
            found=bool(merged.found[i]),
            area_fraction=float(pixels[i + 1] / label_map.size),
            confidence=float(merged.confidence[i]),
        )
        for i, item in enumerate(vocabulary)
    )


def clip_facts(name: str, arm: Arm, clip: MaskAdaptedCLIP) -> dict[str, Any]:
    """Which CLIP named the regions, with the hashes of its files, and how it computed."""
    hashes = {"sha256": clip.weights_sha256, "files": dict(clip.weights_files)}
    return {"name": name, "arm": arm, **hashes, **_computed_in(clip)}


def proposer_facts(proposer: Proposer) -> dict[str, Any]:
    """Which proposer found them, how it looked and how it computed."""
    plan, density = getattr(proposer, "plan", None), getattr(proposer, "density", "")
    return {
        "name": proposer.name,
        "sha256": getattr(proposer, "weights_sha256", ""),
        **_computed_in(proposer),
        **({"density": density} if density else {}),
        **({"plan": asdict(plan)} if plan else {}),
    }


def _computed_in(model: object) -> dict[str, str]:
    """Device and number type; nothing for a proposer that computes nothing, such as stored masks."""
    device, dtype = getattr(model, "device", None), getattr(model, "dtype", None)
    if device is None or dtype is None:
        return {}
    return {"device": str(device), "number_type": str(dtype).removeprefix("torch.")}


def region_results(
    proposals: Proposals, photo_shape: tuple[int, ...], vocabulary: Vocabulary, merged: Merged
) -> tuple[RegionResult, ...]:
    """Facts about each proposal; its box in pixels of the photo, whose shape is (H, W, 3)."""
    height, width = proposals.masks.shape[1:]
    full_height, full_width = photo_shape[:2]
    scale = np.array([full_width / width, full_height / height] * 2)
    results = []
    for k, box in enumerate(proposals.boxes):
        own = merged.probabilities[k]
        best = np.argsort(-own, kind="stable")[:5]
        left, top, right, bottom = (int(v) for v in np.round(box * scale))
        # A region thinner than a pixel of the photo still has one, inside the photo.
        left, top = min(left, full_width - 1), min(top, full_height - 1)
        results.append(
            RegionResult(
                id=k + 1,
                box=(left, top, max(right, left + 1), max(bottom, top + 1)),
                area_fraction=float(proposals.area_fraction[k]),
                class_index=int(merged.region_class[k]),
                confidence=float(merged.region_confidence[k]),
                quality=float(proposals.quality[k]),
                top=tuple((vocabulary.names[i], float(own[i])) for i in best),
                closest_hidden="" if merged.region_class[k] else merged.closest_hidden[k],
            )
        )
    return tuple(results)


def to_size(values: NDArray[np.uint16], image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Nearest neighbour from the working size to the photo's own."""
    height, width = image.shape[:2]
    if values.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
