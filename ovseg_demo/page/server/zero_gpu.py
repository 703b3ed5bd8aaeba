"""ZeroGPU, the free GPU of Hugging Face Spaces: it belongs to another process that lives for one call.

That process is forked from this one. Arguments and results of a call are pickled, and whatever it sets in
memory is lost. So only what needs the GPU happens there, finding and embedding regions, and plain NumPy comes
back; names, merging and everything that is kept stay here, on the CPU. Anywhere else nothing of this is used:
the package `spaces` is there on Spaces only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

try:
    import spaces
except ImportError:
    spaces = None

from ovseg_demo.caching.memory_cache import MemoryCache
from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.naming.classifier import Classifier, PhotoAnalysis, PhotoFeatures
from ovseg_demo.progress import Progress, embedding_progress
from ovseg_demo.proposals import Point, Prompt, PromptedMasks, Proposals, Proposer
from ovseg_demo.result import Arm
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from ovseg_demo.teaching.prompts_file import TaughtPrompts

__all__ = ["SECONDS", "ZeroGpuSegmenter", "on_gpu"]

SECONDS = 30
"""Longest that a call holds the GPU: the largest models of the table and 100 regions. Less waits less."""

F = TypeVar("F", bound=Callable[..., Any])
Packed = dict[str, Any]


def on_gpu(work: F) -> F:
    """`work` in the process that has the GPU; on any other machine `work` itself."""
    return cast(F, spaces.GPU(duration=SECONDS)(work)) if spaces else work


class ZeroGpuSegmenter(Segmenter):
    """Find and embed regions in the GPU's process, and name them in this one.

    Args: as `Segmenter`; `device` is where the GPU's process finds its models.
    """

    def __init__(
        self,
        model: str,
        proposer: Proposer,
        *,
        device: str = "cuda",
        settings: Settings | None = None,
        reload: Callable[..., Proposer] | None = None,
        photos: MemoryCache[PhotoAnalysis] | None = None,
    ) -> None:
        super().__init__(model, proposer, device="cpu", settings=settings, photos=photos)
        # Placed before the process is forked: what it loads itself, it loads again in every call.
        self.gpu_segmenter = Segmenter(model, proposer, device=device, settings=settings, reload=reload)
        self._examine_on_gpu = on_gpu(self._examine_there)
        self._embed_on_gpu = on_gpu(self._embed_there)
        self._prompt_on_gpu = on_gpu(self._prompt_there)

    def sibling(
        self, proposer: Proposer, settings: Settings, reload: Callable[..., Proposer] | None = None
    ) -> ZeroGpuSegmenter:
        """See `Segmenter.sibling`."""
        other = super().sibling(proposer, settings, reload)
        other.gpu_segmenter = self.gpu_segmenter.sibling(proposer, settings, reload)
        return other

    def classifier(self, arm: Arm) -> Classifier:
        """See `Segmenter.classifier`; placed where the GPU's process finds it, too."""
        self.gpu_segmenter.classifier(arm)
        return super().classifier(arm)

    def add_classifier(self, classifier: Classifier, arm: Arm) -> None:
        """See `Segmenter.add_classifier`; placed where the GPU's process finds it, too."""
        self.gpu_segmenter.add_classifier(classifier, arm)
        super().add_classifier(classifier, arm)

    def _take_prompts(self, other: ZeroGpuSegmenter, taught: TaughtPrompts) -> None:
        """See `RegionTools._take_prompts`; placed where the GPU's process finds them, too."""
        super()._take_prompts(other, taught)
        self.gpu_segmenter = other.gpu_segmenter.with_prompts(taught)

    def region_clip(self, arm: Arm) -> MaskAdaptedCLIP:
        """See `Segmenter.region_clip`."""
        return self.gpu_segmenter.region_clip(arm)

    def compute_analysis(
        self, pixels: NDArray[np.uint8], arms: tuple[Arm, ...]
    ) -> Generator[Progress, None, PhotoAnalysis]:
        """See `Segmenter.compute_analysis`; embeds the regions in the same call."""
        photo = None
        with closing(self._examine_on_gpu(pixels, arms)) as steps:
            for step in steps:
                if isinstance(step, Progress):
                    yield step
                else:
                    photo = unpacked(step, pixels)
        assert photo is not None, "the last step is the result"
        return photo

    def embed(self, photo: PhotoAnalysis, arm: Arm) -> PhotoFeatures:
        """See `Segmenter.embed`."""
        return unpacked(self._embed_on_gpu(packed(photo), arm), photo.image).features[arm]

    def prompt(self, photo: PhotoAnalysis, prompt: Prompt) -> PromptedMasks:
        """See `RegionTools.prompt`."""
        shape, bits, quality = self._prompt_on_gpu(packed(photo), photo.image.shape, prompt)
        masks = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
        return PromptedMasks(masks, quality)

    def preview_at(self, pixels: NDArray[np.uint8], points: Sequence[Point]) -> None:
        """None: each move of a pointer would claim a GPU."""

    def _prompt_there(
        self, content: Packed, shape: tuple[int, ...], prompt: Prompt
    ) -> tuple[tuple[int, ...], NDArray[np.uint8], NDArray[np.float32]]:
        photo = unpacked(content, np.zeros(shape, dtype=np.uint8))
        found = self.gpu_segmenter.prompt(photo, prompt)
        return found.masks.shape, np.packbits(found.masks), found.quality

    def _examine_there(
        self, pixels: NDArray[np.uint8], arms: tuple[Arm, ...]
    ) -> Generator[Progress | Packed, None, None]:
        photo = yield from self.gpu_segmenter.compute_analysis(pixels, arms)
        for arm in arms:
            yield embedding_progress(photo.proposals.masks, 0.7)
            photo.features[arm] = self.gpu_segmenter.embed(photo, arm)
            photo.timings |= photo.features[arm].timings
        yield packed(photo)

    def _embed_there(self, content: Packed, arm: Arm) -> Packed:
        photo = unpacked(content, content["working"])
        photo.features[arm] = self.gpu_segmenter.embed(photo, arm)
        return packed(photo)


def packed(photo: PhotoAnalysis) -> Packed:
    """What is known of a photo, as plain NumPy that is quick to pickle: masks become bits."""
    masks = photo.proposals.masks
    return {
        "working": photo.working,
        "shape": masks.shape,
        "bits": np.packbits(masks),
        "quality": photo.proposals.quality,
        "boxes": photo.proposals.boxes,
        "queries": photo.proposals.queries,  # NumPy, too
        "embedding": photo.proposals.embedding,
        "features": {arm: (f.regions, f.photo, dict(f.timings)) for arm, f in photo.features.items()},
        "timings": dict(photo.timings),
    }


def unpacked(content: Packed, image: NDArray[np.uint8]) -> PhotoAnalysis:
    """The other way round; `image` is the photo at its own size."""
    shape = content["shape"]
    masks = np.unpackbits(content["bits"], count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
    return PhotoAnalysis(
        image,
        content["working"],
        Proposals(masks, content["quality"], content["boxes"], content["queries"], content["embedding"]),
        {arm: PhotoFeatures(*parts) for arm, parts in content["features"].items()},
        dict(content["timings"]),
    )
