"""Models of open_clip that the printed table lists; any other goes by its name too."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OPEN_CLIP_MODELS", "OpenClipEntry"]

_APPLE = "Apple AMLR, research use only"


@dataclass(frozen=True)
class OpenClipEntry:
    """One model, its size and licence; its files are not pinned, so their hashes are in the results alone."""

    name: str
    """What --model takes."""
    millions: float
    """Parameters of both towers, in millions; a file has four bytes for each."""
    licence: str
    title: str

    @property
    def non_commercial(self) -> bool:
        """Whether the licence allows no commercial use."""
        return "research" in self.licence


OPEN_CLIP_MODELS = (
    OpenClipEntry("open_clip:ViT-B-16/laion2b_s34b_b88k", 149.6, "MIT", "ViT-B/16 on LAION-2B"),
    OpenClipEntry("open_clip:ViT-B-16/datacomp_xl_s13b_b90k", 149.6, "MIT", "ViT-B/16 on DataComp-1B"),
    OpenClipEntry("open_clip:ViT-B-16/dfn2b", 149.6, _APPLE, "ViT-B/16 on DFN-2B"),
    OpenClipEntry("open_clip:ViT-L-14/dfn2b", 427.6, _APPLE, "ViT-L/14 on DFN-2B"),
    OpenClipEntry("open_clip:MobileCLIP2-S0/dfndr2b", 74.8, _APPLE, "MobileCLIP2-S0, FastViT"),
    OpenClipEntry("open_clip:MobileCLIP2-S2/dfndr2b", 99.2, _APPLE, "MobileCLIP2-S2, FastViT"),
    OpenClipEntry("open_clip:PE-Core-T-16-384/meta", 69.5, "Apache-2.0", "Perception Encoder, tiny"),
    OpenClipEntry("open_clip:PE-Core-S-16-384/meta", 87.2, "Apache-2.0", "Perception Encoder, small"),
    OpenClipEntry("open_clip:PE-Core-B-16/meta", 447.7, "Apache-2.0", "Perception Encoder, base"),
    OpenClipEntry("open_clip:ViT-B-16-SigLIP2/webli", 375.2, "Apache-2.0", "SigLIP 2, ViT-B/16, sigmoid"),
    OpenClipEntry("open_clip:convnext_base_w/laion2b_s13b_b82k", 179.4, "MIT", "ConvNeXt-Base on LAION-2B"),
    OpenClipEntry("open_clip:RN50/openai", 102.0, "MIT", "OpenAI CLIP ResNet-50"),
    OpenClipEntry(
        "hf-hub:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M",
        11.0,
        "MIT",
        "TinyCLIP, ViT-8M/16, 3M text",
    ),
    OpenClipEntry(
        "hf-hub:wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",
        58.0,
        "MIT",
        "TinyCLIP, ViT-39M/16, 19M text",
    ),
)
