"""The results that the page ships belong to its examples, words and weights."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg_demo.imaging import load_image
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import FOLDER, Example, load_examples
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary


@pytest.mark.parametrize("example", load_examples(), ids=lambda e: e.photo.stem)
def test_the_shipped_result_is_of_these_words_and_weights(example: Example) -> None:
    """Make them anew with: python -m ovseg_demo.page.example_results"""
    ready = example_result(example)
    assert ready is not None, "there is no result for these words"
    words = Vocabulary.parse(example.words)
    sums = (FOLDER.parent / "checkpoints" / "ovseg-mini" / "SHA256SUMS").read_text(encoding="utf-8")
    for arm in ready.result.arms:
        assert tuple(c.name for c in arm.classes) == words.names
        assert f"{arm.models['clip']['sha256']}  {arm.arm}.safetensors" in sums
        assert np.array_equal(arm.image, load_image(example.photo))
        assert Models.of(arm) == ModelPool(Settings()).default
    assert set(ready.payload["arms"]) == {"vanilla", "adapted"} and ready.payload["masks"]
    assert example.credit in ready.payload["timing"]
