"""The sentence encoder without padding gives what the published model gives with its own code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertModel

from ovseg_demo.clip.minilm import MiniTextTower, minilm_folder
from ovseg_demo.clip.sentence_encoder import LONGEST_TOKENS, SENTENCES_AT_ONCE, SentenceEncoder
from ovseg_demo.devices import fast_dtype
from ovseg_demo.weight_files import read_file

SENTENCES = (
    "a photo of a dog.",
    "dog",
    "There is a large crimson rocking chair in the scene.",
    "",
    "Überraschung 犬 🐕",
    "a photo of a cat.",
    "very " * 200 + "long",
)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(minilm_folder())


@torch.no_grad()
def published(encoder: SentenceEncoder) -> Tensor:
    """The vectors of SENTENCES by the transformers library, one sentence at a time."""
    folder = minilm_folder()
    model = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
    weights = dict(read_file(folder / "model.safetensors"))
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    model.eval()
    vectors = []
    for sentence in SENTENCES:
        ids = torch.tensor([encoder.tokenizer.encode(sentence).ids])
        assert ids.shape[1] <= LONGEST_TOKENS
        vectors.append(functional.normalize(model(input_ids=ids).last_hidden_state.mean(1)[0], dim=0))
    return torch.stack(vectors)


def test_vectors_are_those_of_the_published_code(encoder: SentenceEncoder) -> None:
    torch.testing.assert_close(encoder(SENTENCES), published(encoder), atol=2e-6, rtol=0)


def test_many_sentences_give_what_each_gives_alone(encoder: SentenceEncoder) -> None:
    many = [f"{sentence} {number}" for number in range(60) for sentence in SENTENCES[:6]]
    assert len(many) > SENTENCES_AT_ONCE
    together = encoder(many)
    for row in (0, 5, 127, len(many) - 1):
        torch.testing.assert_close(together[row], encoder([many[row]])[0], atol=2e-6, rtol=0)
    assert encoder([]).shape == (0, 384)


def test_bfloat16_changes_rounding_only(encoder: SentenceEncoder) -> None:
    rounded = SentenceEncoder(minilm_folder(), torch.bfloat16)(SENTENCES)
    assert rounded.dtype == torch.float32
    cosines = (rounded * encoder(SENTENCES)).sum(1)
    assert cosines.min() > 0.9997
    assert cosines.max() < 1 - 1e-6


def test_a_tower_reads_in_bfloat16_only_where_the_processor_multiplies_in_it(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = MiniTextTower()
    assert tower.dtype == torch.float32
    tower.compute_in(torch.bfloat16)
    assert tower.dtype == fast_dtype(torch.device("cpu"))
    monkeypatch.setattr("ovseg_demo.clip.minilm.fast_dtype", lambda device: torch.float32)
    tower.compute_in(torch.bfloat16)
    assert tower.dtype == torch.float32
    torch.testing.assert_close(tower.sentence_vectors(SENTENCES), encoder(SENTENCES))
