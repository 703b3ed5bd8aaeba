"""Names are read batch by batch, and what was read is not read again when names are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mini import CROP_RECIPE, MiniConfig, MiniImageTower
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.naming.reading import names_compared, text_progress
from ovseg_demo.proposals import Proposals
from ovseg_demo.vocabulary import Vocabulary


def test_everything_that_scoring_reads_with_these_sentences_was_read_with_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    tower = MiniImageTower(MiniConfig(width=64, layers=1), prompt_depth=1)
    clip = MaskAdaptedCLIP(tower, MiniTextTower(), embed_dim=768, crop_recipe=CROP_RECIPE).eval()
    clip.text_key = "text"
    read: list[tuple[str, str]] = []
    answer = MaskAdaptedCLIP.encode_text

    def noted(self: MaskAdaptedCLIP, names: Sequence[str], templates: Any) -> torch.Tensor:
        read.extend((name, templates) for name in names)
        return answer(self, names, templates)

    monkeypatch.setattr(MaskAdaptedCLIP, "encode_text", noted)
    classifier = Classifier(clip)
    words = Vocabulary.parse("dog | puppy, " + ", ".join(f"thing {i}" for i in range(130)))
    names = names_compared(words, with_hidden=False)
    steps = list(text_progress(classifier, names, "single", 0.5, 0.9))
    assert [step.message for step in steps] == [
        "Reading 133 words",
        "Reading words: 64 of 133",
        "Reading words: 128 of 133",
    ]
    assert [step.fraction for step in steps] == pytest.approx([0.5, 0.692, 0.885], abs=0.001)
    before = len(read)
    image = np.zeros((16, 16, 3), np.uint8)
    features = classifier.embed(image, Proposals.of(np.ones((1, 16, 16), np.bool_), np.ones(1, np.float32)))
    classifier.score(features, words, "single", with_hidden=False)
    assert before == len(names) == len(read)
