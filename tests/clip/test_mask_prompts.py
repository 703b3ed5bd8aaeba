"""Mask prompts replace background tokens at the input and after the first blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.mask_prompts import MaskPrompts, run_blocks, token_mask

WIDTH, PLACES = 8, 4


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, PLACES, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def kept() -> Tensor:
    return torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])


def test_tokens_of_the_region_pass_and_background_tokens_become_the_prompt_of_their_place(tokens, kept):
    prompts = MaskPrompts(3, PLACES, WIDTH)
    for level in range(3):
        out = prompts.at(level, tokens, kept)
        for b, n in [(0, 0), (0, 3), (1, 2), (1, 3)]:
            assert torch.equal(out[b, n], tokens[b, n])
        for b, n in [(0, 1), (0, 2), (1, 0), (1, 1)]:
            assert torch.equal(out[b, n], prompts.mask_embedding[level, n])


def test_beyond_the_last_level_nothing_is_replaced(tokens, kept):
    assert MaskPrompts(2, PLACES, WIDTH).at(2, tokens, kept) is tokens
    assert MaskPrompts(0, PLACES, WIDTH).at(0, tokens, kept) is tokens


def test_one_vector_can_serve_all_places(tokens, kept):
    prompts = MaskPrompts(1, 1, WIDTH)
    out = prompts.at(0, tokens, kept)
    assert torch.equal(out[0, 1], prompts.mask_embedding[0, 0])
    assert torch.equal(out[1, 0], prompts.mask_embedding[0, 0])


def test_prompts_begin_small_and_random():
    values = MaskPrompts(3, 196, 64).mask_embedding
    assert values.shape == (3, 196, 64)
    assert abs(float(values.detach().std()) - 0.02) < 0.001


def test_prompts_take_the_type_of_the_tokens(tokens, kept):
    assert MaskPrompts(1, PLACES, WIDTH).at(0, tokens.bfloat16(), kept).dtype == torch.bfloat16


def test_only_the_prompts_of_background_places_learn(tokens, kept):
    prompts = MaskPrompts(1, PLACES, WIDTH)
    prompts.at(0, tokens[:1], kept[:1]).sum().backward()
    learned = prompts.mask_embedding.grad.abs().sum(-1)[0] > 0
    assert learned.tolist() == [False, True, True, False]


def test_one_pixel_keeps_a_patch():
    masks = torch.zeros(1, 8, 8)
    masks[0, 3, 4] = 1  # the last row of the first row of patches, the first column of the second
    assert token_mask(masks, 4).tolist() == [[0, 1, 0, 0]]


def test_patches_are_counted_row_by_row():
    masks = torch.zeros(1, 8, 12)
    masks[0, 5, 11] = 1
    assert token_mask(masks, 4).tolist() == [[0, 0, 0, 0, 0, 1]]


@settings(deadline=None)
@given(st.integers(0, 3), st.floats(0, 1), st.integers(0, 9))
def test_the_token_mask_is_the_rounded_up_mean_of_the_pixels(count, density, seed):
    masks = (torch.rand(count, 16, 16, generator=torch.Generator().manual_seed(seed)) < density).float()
    published = functional.avg_pool2d(masks[:, None], 4).ceil().flatten(1)
    assert torch.equal(token_mask(masks, 4), published)


class Add(nn.Module):
    """A block that adds a number to every token."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


def test_deep_prompts_act_after_the_first_blocks_on_the_stream_as_it_is(tokens, kept):
    prompts = MaskPrompts(3, PLACES, WIDTH)
    x = torch.cat([torch.zeros(2, 1, WIDTH), tokens], dim=1)
    out = run_blocks([Add(1), Add(10), Add(100), Add(1000)], x, prompts, kept)
    # After block 2 comes level 2, the last; blocks 3 and 4 then add to what it put there.
    torch.testing.assert_close(out[0, 1 + 1], prompts.mask_embedding[2, 1] + 1100)
    torch.testing.assert_close(out[0, 1 + 0], tokens[0, 0] + 1111)


def test_the_class_token_is_never_replaced(tokens):
    nothing = torch.zeros(2, PLACES)
    x = torch.cat([torch.full((2, 1, WIDTH), 7.0), tokens], dim=1)
    out = run_blocks([nn.Identity(), nn.Identity()], x, MaskPrompts(2, PLACES, WIDTH), nothing)
    assert torch.equal(out[:, 0], x[:, 0])


@pytest.mark.parametrize("missing", ["prompts", "mask", "depth"])
def test_without_prompts_or_mask_this_is_the_plain_tower(tokens, kept, missing):
    prompts = None if missing == "prompts" else MaskPrompts(0 if missing == "depth" else 3, PLACES, WIDTH)
    out = run_blocks([Add(1), Add(2)], tokens, prompts, None if missing == "mask" else kept)
    assert torch.equal(out, tokens + 1 + 2)


def test_more_levels_than_blocks_do_no_harm(tokens, kept):
    x = torch.cat([torch.zeros(2, 1, WIDTH), tokens], dim=1)
    out = run_blocks([nn.Identity()], x, MaskPrompts(5, PLACES, WIDTH), kept)
    assert out.shape == x.shape
