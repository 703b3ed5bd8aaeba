"""Open-vocabulary segmentation with mask-adapted CLIP.

    from ovseg_demo import Segmenter
    result = Segmenter.from_pretrained("ovseg-mini")("photo.jpg", "dog, grass, sky")

Names are loaded when they are first used, so that `import ovseg_demo` costs nothing and starts no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovseg_demo.corrections import CorrectedRegion
    from ovseg_demo.errors import (
        CheckpointError,
        CorrectionError,
        DownloadError,
        ImageError,
        ModelError,
        OutputError,
        OvsegError,
        ProposalError,
        ResourceError,
        SettingsError,
        UnknownModelError,
        VocabularyError,
    )
    from ovseg_demo.imaging import load_image
    from ovseg_demo.memory import Memory
    from ovseg_demo.progress import Progress
    from ovseg_demo.result import ClassResult, Comparison, RegionResult, Segmentation
    from ovseg_demo.segmenter import Segmenter
    from ovseg_demo.settings import Settings
    from ovseg_demo.vocabulary import Vocabulary

__version__ = "0.1.0"

# oneDNN writes a program for each shape of a layer and keeps 1,024 of them; photos of a few shapes need more.
# It reads this when the first layer runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

__all__ = [
    "CheckpointError",
    "ClassResult",
    "Comparison",
    "CorrectedRegion",
    "CorrectionError",
    "DownloadError",
    "ImageError",
    "Memory",
    "ModelError",
    "OutputError",
    "OvsegError",
    "Progress",
    "ProposalError",
    "RegionResult",
    "ResourceError",
    "Segmentation",
    "Segmenter",
    "Settings",
    "SettingsError",
    "UnknownModelError",
    "Vocabulary",
    "VocabularyError",
    "__version__",
    "load_image",
]

_HOME = {
    "CheckpointError": "errors",
    "ClassResult": "result",
    "Comparison": "result",
    "CorrectedRegion": "corrections",
    "CorrectionError": "errors",
    "DownloadError": "errors",
    "ImageError": "errors",
    "Memory": "memory",
    "ModelError": "errors",
    "OutputError": "errors",
    "OvsegError": "errors",
    "Progress": "progress",
    "ProposalError": "errors",
    "RegionResult": "result",
    "ResourceError": "errors",
    "Segmentation": "result",
    "Segmenter": "segmenter",
    "Settings": "settings",
    "SettingsError": "errors",
    "UnknownModelError": "errors",
    "Vocabulary": "vocabulary",
    "VocabularyError": "errors",
    "load_image": "imaging",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
