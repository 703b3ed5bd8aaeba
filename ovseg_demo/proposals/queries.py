"""Soft masks of a segmenter and the text-space embeddings of its queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

QUERY_SCALE = 100.0
"""A cosine times this is a logit, as in training of the published segmenters."""

_AT_ONCE = 16  # masks that are resized together


@dataclass(frozen=True, eq=False)
class SoftMasks:
    """N masks as the segmenter outputs them: coarse, soft, unsorted.

    Attributes:
        logits: (N, h, w) float32 mask logits, at the network's coarse size.
        padded: height and width in pixels of the padded picture that `logits` cover.
        inner: height and width of the picture without the padding, as the network saw it.
        size: height and width of the picture that the proposals belong to.
    """

    logits: npt.NDArray[np.float32]
    padded: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.logits)

    def soft_masks(self, which: slice = slice(None)) -> Tensor:
        """(n, H, W) float32 in 0..1 at the size of the picture."""
        part = torch.from_numpy(self.logits[which])
        out = part.new_empty(len(part), *self.size)
        height, width = self.inner
        for start in range(0, len(part), _AT_ONCE):
            some = part[start : start + _AT_ONCE, None]
            full = functional.interpolate(some, self.padded, mode="bilinear", align_corners=False)
            soft = full[:, :, :height, :width].sigmoid()
            if self.inner != self.size:
                soft = functional.interpolate(soft, self.size, mode="bilinear", align_corners=False)
            out[start : start + _AT_ONCE] = soft[:, 0]
        return out

    @torch.inference_mode()
    def hard_masks(self, threshold: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Threshold the masks strictly, and average their soft values inside.

        Returns:
            (N, H, W) bool and (N,) float32 in 0..1, the mean over the mask's pixels; 0 for a mask without.
        """
        masks = np.empty((len(self), *self.size), dtype=np.bool_)
        certain = np.zeros(len(self), dtype=np.float32)
        for start in range(0, len(self), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            soft = self.soft_masks(some)
            hard = soft > threshold
            masks[some] = hard.numpy()
            certain[some] = (soft * hard).flatten(1).sum(1) / hard.flatten(1).sum(1).clamp(min=1)
        return masks, certain


@dataclass(frozen=True, eq=False)
class Queries(SoftMasks):
    """All N masks of a segmenter whose queries are points of CLIP's text space.

    Attributes:
        mask_threshold: a pixel belongs to a mask strictly above it.
        embeddings: (N, D) float32, where each query lies in the text space; not normalised.
        no_object: (D,) float32 unit vector, which competes with all names: a mask of nothing.
        index: (K,) int64, which query each of the K proposals is.
    """

    mask_threshold: float
    embeddings: npt.NDArray[np.float32]
    no_object: npt.NDArray[np.float32]
    index: npt.NDArray[np.int64]

    def only(self, kept: npt.NDArray[np.intp]) -> Queries:
        """The same queries when only the `kept` ones of the proposals are left."""
        return replace(self, index=self.index[kept])

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For a file; `from_arrays` is the way back."""
        return {
            "logits": self.logits,
            "sizes": np.array([self.padded, self.inner, self.size]),
            "mask_threshold": np.array(self.mask_threshold),
            "embeddings": self.embeddings,
            "no_object": self.no_object,
            "index": self.index,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Queries:
        """What `to_arrays` gave; `KeyError` if one of them is not there."""
        padded, inner, size = ((int(height), int(width)) for height, width in arrays["sizes"])
        return cls(
            logits=arrays["logits"],
            padded=padded,
            inner=inner,
            size=size,
            mask_threshold=float(arrays["mask_threshold"]),
            embeddings=arrays["embeddings"],
            no_object=arrays["no_object"],
            index=arrays["index"],
        )
