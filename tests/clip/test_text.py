"""Names become features by CLIP's zero-shot rule."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.text import SENTENCES_AT_ONCE, TEMPLATES, encode_names


@pytest.mark.parametrize(
    ("mode", "count", "digest"),
    [
        ("vild", 14, "20c81c13267c6b932d64146a292f740d2630ab9a403650b066628fa670a7a1b7"),
        ("imagenet", 80, "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"),
    ],
)
def test_the_templates_are_the_published_ones_in_their_order(mode, count, digest):
    assert len(TEMPLATES[mode]) == count
    assert sha256("\n".join(TEMPLATES[mode]).encode()).hexdigest() == digest


@torch.no_grad()
def test_a_feature_is_the_mean_of_unit_features_at_unit_length(clip: MaskAdaptedCLIP):
    templates = ["a {}.", "the {} again", "{}"]
    ours = encode_names(clip.text_tower, ["red fox"], templates)
    each = [clip.text_tower([t.replace("{}", "red fox")])[0] for t in templates]
    mean = torch.stack([f / f.norm() for f in each]).mean(0)
    torch.testing.assert_close(ours[0], mean / mean.norm())


@torch.no_grad()
def test_many_names_give_what_each_gives_alone(clip: MaskAdaptedCLIP):
    names = [f"thing {i}" for i in range(SENTENCES_AT_ONCE // 14 + 3)]
    together = encode_names(clip.text_tower, names, TEMPLATES["vild"])
    for i in (0, 1, len(names) - 1):
        alone = encode_names(clip.text_tower, names[i : i + 1], TEMPLATES["vild"])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


class Recorder:
    """A text tower that records the sentences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        self.sentences += sentences
        return functional.one_hot(torch.arange(len(sentences)), 4).float()


def test_blanks_around_a_name_are_dropped_and_its_braces_kept():
    tower = Recorder()
    encode_names(tower, [" window ", "{} {0} {x}"], ["a photo of a {}."])
    assert tower.sentences == ["a photo of a window.", "a photo of a {} {0} {x}."]
