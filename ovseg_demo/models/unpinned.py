"""Models of the hub that lists show and whose files are not pinned; any other goes by its name too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_demo.models.hub import HubFile, is_here

__all__ = ["OPEN_CLIP_MODELS", "SAM2_MODELS", "UNPINNED", "UnpinnedModel"]

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
"""Files of which a repository or folder has one, the first that is there counts."""
_APPLE = "Apple AMLR, research use only"


@dataclass(frozen=True)
class UnpinnedModel:
    """One model, its size and licence; the hashes of its files are in the results alone."""

    name: str
    """What --model or --proposer takes."""
    millions: float
    """Parameters, of a CLIP those of both towers, in millions; a file has four bytes for each."""
    licence: str
    title: str
    repository: str
    """OWNER/NAME on the hub."""
    kind: Literal["clip", "proposer"] = "clip"

    @property
    def size_bytes(self) -> int:
        """Of its file of weights, about."""
        return round(4e6 * self.millions)

    @property
    def non_commercial(self) -> bool:
        """Whether the licence allows no commercial use."""
        return "research" in self.licence

    def present(self, cache_dir: Path) -> bool:
        """Whether its weights have been downloaded."""
        return any(is_here(HubFile(self.repository, file, 0, "main", ""), cache_dir) for file in WEIGHTS)


OPEN_CLIP_MODELS = (
    UnpinnedModel(
        "open_clip:ViT-B-16/laion2b_s34b_b88k",
        149.6,
        "MIT",
        "ViT-B/16 on LAION-2B",
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    ),
    UnpinnedModel(
        "open_clip:ViT-B-16/datacomp_xl_s13b_b90k",
        149.6,
        "MIT",
        "ViT-B/16 on DataComp-1B",
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    ),
    UnpinnedModel(
        "open_clip:ViT-B-16/dfn2b", 149.6, _APPLE, "ViT-B/16 on DFN-2B", "apple/DFN2B-CLIP-ViT-B-16"
    ),
    UnpinnedModel(
        "open_clip:ViT-L-14/dfn2b", 427.6, _APPLE, "ViT-L/14 on DFN-2B", "apple/DFN2B-CLIP-ViT-L-14"
    ),
    UnpinnedModel(
        "open_clip:MobileCLIP2-S0/dfndr2b",
        74.8,
        _APPLE,
        "MobileCLIP2-S0, FastViT",
        "timm/MobileCLIP2-S0-OpenCLIP",
    ),
    UnpinnedModel(
        "open_clip:MobileCLIP2-S2/dfndr2b",
        99.2,
        _APPLE,
        "MobileCLIP2-S2, FastViT",
        "timm/MobileCLIP2-S2-OpenCLIP",
    ),
    UnpinnedModel(
        "open_clip:PE-Core-T-16-384/meta",
        69.5,
        "Apache-2.0",
        "Perception Encoder, tiny",
        "timm/PE-Core-T-16-384",
    ),
    UnpinnedModel(
        "open_clip:PE-Core-S-16-384/meta",
        87.2,
        "Apache-2.0",
        "Perception Encoder, small",
        "timm/PE-Core-S-16-384",
    ),
    UnpinnedModel(
        "open_clip:PE-Core-B-16/meta", 447.7, "Apache-2.0", "Perception Encoder, base", "timm/PE-Core-B-16"
    ),
    UnpinnedModel(
        "open_clip:ViT-B-16-SigLIP2/webli",
        375.2,
        "Apache-2.0",
        "SigLIP 2, ViT-B/16, sigmoid",
        "timm/ViT-B-16-SigLIP2",
    ),
    UnpinnedModel(
        "open_clip:convnext_base_w/laion2b_s13b_b82k",
        179.4,
        "MIT",
        "ConvNeXt-Base on LAION-2B",
        "laion/CLIP-convnext_base_w-laion2B-s13B-b82K",
    ),
    UnpinnedModel(
        "open_clip:RN50/openai", 102.0, "MIT", "OpenAI CLIP ResNet-50", "timm/resnet50_clip.openai"
    ),
    UnpinnedModel(
        "hf-hub:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M",
        11.0,
        "MIT",
        "TinyCLIP, ViT-8M/16, 3M text",
        "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M",
    ),
    UnpinnedModel(
        "hf-hub:wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",
        58.0,
        "MIT",
        "TinyCLIP, ViT-39M/16, 19M text",
        "wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",
    ),
)

# Parameters and licence as in README.md of facebookresearch/sam2, names as on the hub.
SAM2_MODELS = tuple(
    UnpinnedModel(
        f"hf-hub:facebook/sam2.1-hiera-{size}",
        millions,
        "Apache-2.0",
        f"SAM 2.1, Hiera-{size}",
        f"facebook/sam2.1-hiera-{size}",
        "proposer",
    )
    for size, millions in (("tiny", 38.9), ("small", 46.0), ("base-plus", 80.8), ("large", 224.4))
)
UNPINNED = {entry.name: entry for entry in (*OPEN_CLIP_MODELS, *SAM2_MODELS)}
