"""Fine-tuning and prompt tuning: what is learned, what moves, what is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import CheckpointError, SettingsError
from tests.train.synthetic_pairs import COLOURS, curve, prompt_settings, weights_of
from train.core.loop import (
    HIGHEST_LOG_SCALE,
    AdaptationError,
    AdaptationModel,
    check_frozen,
    frozen_copy,
)
from train.core.loss import name_loss, name_prior, pair_loss, photo_loss, row_mask
from train.data.loader import load_batches
from train.data.pair_folder import PairFolder
from train.data.pairs import CropPairs
from train.data.sampler import PairSampler
from train.data.sources import DataError
from train.evaluation.curves import smoothed
from train.finetune import FinetuneSettings, finetune
from train.prompt_tune import prompt_tune

pytestmark = pytest.mark.usefixtures("one_thread")


def padded_rows(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Lists of bank rows as (n, widest) int64, filled up with -1; at least one column."""
    width = max([1, *map(len, rows)])
    filled = [[*some, *[-1] * (width - len(some))] for some in rows]
    return torch.tensor(filled, dtype=torch.int64).reshape(len(rows), width)


# --- what is learned and what moves ----------------------------------------------------------------------


def test_finetuning_learns_and_leaves_the_text_tower_alone(ft_settings: FinetuneSettings, vit: Path) -> None:
    finetune(replace(ft_settings, steps=30))
    losses = [row[0] for row in curve(ft_settings.out, "loss")]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    before, after = weights_of(vit), weights_of(ft_settings.out / "adapted.safetensors")
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("image_tower") for name in moved)
    assert not any(name.startswith("text_tower") for name in moved)


def test_prompt_tuning_moves_the_prompts_alone(ft_settings: FinetuneSettings, vit: Path) -> None:
    prompt_tune(prompt_settings(ft_settings, steps=30))
    losses = [row[0] for row in curve(ft_settings.out, "loss")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    before, after = weights_of(vit), weights_of(ft_settings.out / "adapted.safetensors")
    prompts = after.pop("image_tower.prompts.mask_embedding")
    assert prompts.shape == (2, 16, 64)
    assert prompts.std() > 0.03  # they started at 0.02
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_either_goes_on_from_the_other(ft_settings: FinetuneSettings) -> None:
    first, second = ft_settings.out.with_name("first"), ft_settings.out.with_name("second")
    prompt_tune(prompt_settings(ft_settings, out=first))
    finetune(replace(ft_settings, start=first / "adapted.safetensors", out=second))
    before, after = (weights_of(folder / "adapted.safetensors") for folder in (first, second))
    name = "image_tower.prompts.mask_embedding"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["image_tower.visual.proj"], after["image_tower.visual.proj"])


def test_tower_and_prompts_may_be_trained_together(ft_settings: FinetuneSettings, vit: Path) -> None:
    finetune(replace(ft_settings, prompt_depth=3, prompt_rate=0.05))
    after = weights_of(ft_settings.out / "adapted.safetensors")
    assert after["image_tower.prompts.mask_embedding"].std() > 0.03
    assert not torch.equal(weights_of(vit)["image_tower.visual.proj"], after["image_tower.visual.proj"])


def test_blended_weights_stand_between_the_start_and_what_was_trained(
    ft_settings: FinetuneSettings, vit: Path
) -> None:
    finetune(ft_settings)
    half = replace(ft_settings, blend=0.5, out=ft_settings.out.with_name("half"))
    finetune(half)
    start, trained, between = map(
        weights_of, (vit, *(o / "adapted.safetensors" for o in (ft_settings.out, half.out)))
    )
    name = "image_tower.visual.proj"
    assert not torch.equal(start[name], trained[name])
    assert torch.allclose(between[name].float(), (start[name] + trained[name]).float() / 2, atol=1e-3)


def test_a_frozen_part_that_moved_is_told() -> None:
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    before = frozen_copy(module)
    module.weight.data += 1
    check_frozen(module, before)
    module.bias.data += 1
    with pytest.raises(AdaptationError, match="bias was to stay frozen"):
        check_frozen(module, before)


def test_a_loss_that_is_no_number_stops_the_run(ft_settings: FinetuneSettings) -> None:
    with pytest.raises(AdaptationError, match=r"The loss is nan at step \d+: give a lower --rate"):
        finetune(replace(ft_settings, rate=1e30, warmup=0, steps=30))


def test_what_is_trained_lies_where_the_model_does(vit: Path) -> None:
    clip = load_clip(vit).to("meta")
    model = AdaptationModel(clip, torch.zeros(3, 32, device="meta"), use_prompts=False)
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}


def test_a_temperature_at_its_limit_may_still_fall(ft_settings: FinetuneSettings, vit: Path) -> None:
    clip = load_clip(vit)
    assert clip.score_scale == pytest.approx(100)
    finetune(replace(ft_settings, steps=8, rate=1e-2, average=0.0))
    state = torch.load(ft_settings.out / "state.pt", weights_only=True)["model"]
    assert state["log_scale"] < HIGHEST_LOG_SCALE - 1e-3


def test_pairs_of_one_noun_are_not_each_others_negatives() -> None:
    text = torch.eye(3)
    nouns = torch.tensor([0, 0, 1])
    scale = torch.tensor(20.0).log()
    perfect = pair_loss(text[nouns], text, nouns[:, None], scale)
    # What remains is the two right answers sharing the probability: log 2 for each of the first two.
    assert perfect.item() == pytest.approx(np.log(2) / 3, abs=1e-3)
    image = functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    alone = torch.tensor([2, 1, 0, 2, 1])
    logits = 20 * image @ text.T
    same = alone[:, None] == alone[None, :]
    to_image = torch.stack(
        [-(logits[:, n].log_softmax(0)[same[i]]).mean() for i, n in enumerate(alone)]
    ).mean()
    wanted = (functional.cross_entropy(logits, alone) + to_image) / 2
    assert pair_loss(image, text, alone[:, None], scale).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_any_right_name_counts_and_ignored_names_do_not() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, 0.0, 3.0, 1.0]])
    right = row_mask(padded_rows([[0, 2], [1]]), 4)
    ignored = row_mask(padded_rows([[], [2, 1]]), 4)  # a right name stays right
    whole, without = logits[0].exp(), logits[1, [0, 1, 3]].exp()
    wanted = torch.stack([whole.sum() / (whole[0] + whole[2]), without.sum() / without[1]]).log()
    assert torch.allclose(name_loss(logits, right, ignored), wanted)
    nothing = torch.zeros_like(right)
    one = functional.one_hot(torch.tensor([3, 0]), 4).bool()
    usual = functional.cross_entropy(logits, torch.tensor([3, 0]), reduction="none")
    assert torch.allclose(name_loss(logits, one, nothing), usual)
    certain = torch.tensor([[60.0, 0.0, -60.0, 60.0]])
    leaning = name_loss(certain, row_mask(padded_rows([[0, 3]]), 4), nothing[:1])
    assert leaning.item() == pytest.approx(0, abs=1e-5)


def test_no_gradient_reaches_an_ignored_name() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    right, ignored = padded_rows([[0, 1], [2], [4, 0]]), padded_rows([[3], [], [2, 3]])
    name_loss(logits, row_mask(right, 5), row_mask(ignored, 5)).sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, row_mask(ignored, 5))


def test_a_photo_tells_its_regions_and_its_names_apart() -> None:
    random = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 6, generator=random)
    right = row_mask(padded_rows([[0], [2], [2], [4], [5]]), 6)  # photos of 3, 1 and 1 regions
    nothing = torch.zeros_like(right)
    own = logits[:3, [0, 2]]  # the names of the first photo; the others have nothing to tell apart
    regions = functional.cross_entropy(own, torch.tensor([0, 1, 1]), reduction="none").sum()
    together = own[:, 1].logsumexp(0) - own[1:, 1].logsumexp(0)
    names = (own[:, 0].logsumexp(0) - own[0, 0] + together) / 2
    wanted = (regions + 3 * names) / 5
    assert photo_loss(logits, right, nothing, [3, 1, 1]).item() == pytest.approx(wanted.item(), rel=1e-5)
    part = row_mask(padded_rows([[], [0], [], [], []]), 6)  # the second region is a part of the first
    logits.requires_grad_()
    photo_loss(logits, right, part, [3, 1, 1]).backward()
    assert logits.grad is not None
    assert logits.grad[1, 0] == 0 and logits.grad[2, 0] != 0
    assert not logits.grad[3:].any() and not logits.grad[:, [1, 3, 4, 5]].any()
    assert photo_loss(logits, right, nothing, [1] * 5).item() == 0


def test_only_pairs_with_one_name_ask_which_regions_are_it() -> None:
    random = torch.Generator().manual_seed(1)
    image, text = (functional.normalize(torch.randn(n, 8, generator=random), dim=-1) for n in (6, 5))
    scale = torch.tensor(10.0).log()
    right = padded_rows([[0], [1], [0, 2], [3], [1], [4]])
    ignored = padded_rows([[], [], [], [], [], [2]])
    single = [0, 1, 3, 4]
    alone = pair_loss(image[single], text, right[single], scale)
    others = [2, 5]
    logits = 10 * image[others] @ text.T
    rest = name_loss(logits, row_mask(right[others], 5), row_mask(ignored[others], 5))
    together = pair_loss(image, text, right, scale, ignored)
    assert together.item() == pytest.approx((4 * alone + rest.sum()).item() / 6, rel=1e-5)
    none = pair_loss(image[others], text, right[others], scale, ignored[others])
    assert none.item() == pytest.approx(rest.mean().item(), rel=1e-5)


def test_frequent_names_get_half_the_logarithm_of_their_frequency() -> None:
    right = padded_rows([[0], [0], [0, 1], [2]])  # 2.5, 0.5 and 1 of 4; the last name has no pair
    prior = name_prior(right, 4, 0.5)
    assert torch.allclose(prior[:3], 0.5 * torch.tensor([2.5, 0.5, 1.0]).div(4).log(), atol=1e-4)
    assert prior[3] == pytest.approx(0.5 * np.log(1e-6))
    assert torch.equal(name_prior(right, 4, 0.0), torch.zeros(4))
    # The text side compares regions, and a name's own prior says nothing about those.
    image, text = torch.eye(4)[:2], torch.eye(4)
    scale, nouns = torch.tensor(0.0), torch.tensor([[0], [1]])
    logits = image @ text.T
    to_text = functional.cross_entropy(logits + prior, nouns[:, 0])
    to_image = functional.cross_entropy(logits[:, :2].T, torch.eye(2))
    loss = pair_loss(image, text, nouns, scale, prior=prior)
    assert loss.item() == pytest.approx((to_text + to_image).item() / 2, rel=1e-5)


# --- which pairs a step sees ------------------------------------------------------------------------------


def slow_epoch(noun_of: np.ndarray, cap: int, seed: int, epoch: int) -> list[int]:
    seen: dict[int, int] = {}
    kept = []
    for row in np.random.default_rng([seed, epoch]).permutation(len(noun_of)):
        seen[noun_of[row]] = seen.get(noun_of[row], 0) + 1
        if seen[noun_of[row]] <= cap:
            kept.append(int(row))
    return kept


def test_an_epoch_shows_every_pair_once_and_frequent_nouns_no_more_than_asked() -> None:
    noun_of = np.random.default_rng(0).choice(6, 200, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02])
    draw = PairSampler(noun_of, batch=7, most_per_noun=20, seed=3)
    for epoch in (0, 1):
        steps = range(epoch * draw.steps_per_epoch, (epoch + 1) * draw.steps_per_epoch)
        rows = np.concatenate([draw.rows(step) for step in steps])
        assert rows.tolist() == slow_epoch(noun_of, 20, 3, epoch)[: len(rows)]
        assert len(rows) == draw.per_epoch // 7 * 7
        assert np.bincount(noun_of[rows]).max() <= 20
    assert not np.array_equal(draw.rows(0), draw.rows(draw.steps_per_epoch))
    assert draw.steps(2.0) == 2 * draw.steps_per_epoch


def test_fewer_pairs_than_a_batch_are_drawn_again() -> None:
    draw = PairSampler(np.array([0, 1, 1]), batch=8, most_per_noun=5, seed=0)
    assert len(draw.rows(0)) == 8
    assert draw.steps(3.0) == 1
    assert PairSampler(np.arange(100), batch=128, most_per_noun=5, seed=0).steps(7.0) == 5


def test_batches_made_ahead_are_the_same(pairs: Path, vit: Path) -> None:
    clip = load_clip(vit)
    maker = CropPairs(PairFolder(pairs), clip.crop_recipe, clip.image_tower.patch, jitter=0.1, seed=0)
    parts = [(np.arange(start, start + 6), step) for step, start in enumerate((0, 20, 40))]
    here = list(load_batches(maker, parts, workers=0, device="cpu"))
    ahead = list(load_batches(maker, parts, workers=2, device="cpu"))
    assert len(here) == len(ahead) == 3
    for one, other in zip(here, ahead, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.token_mask, other.token_mask)
        assert torch.equal(one.right, other.right)
    again = maker.batch(np.array([21, 20]), 1)  # another company, another order
    assert torch.equal(again.inputs[1], here[1].inputs[0])
    assert not torch.equal(maker.batch(np.array([20]), 2).inputs[0], here[1].inputs[0])


# --- what is shown ----------------------------------------------------------------------------------------


def test_a_run_writes_a_log_curves_and_tensorboard_events(ft_settings: FinetuneSettings) -> None:
    finetune(ft_settings)
    rows = [json.loads(line) for line in (ft_settings.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {"step", "loss", "distil", "top1", "rate", "norm", "pairs_per_s"}
    with Image.open(ft_settings.out / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 3
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(ft_settings.out / "tensorboard"))
    board.Reload()
    shown = [event.value for event in board.Scalars("loss")]
    assert shown == pytest.approx([row["loss"] for row in rows], rel=1e-4)


def test_the_running_mean_keeps_means_and_ends() -> None:
    assert smoothed(np.array([1.0, 2.0, 3.0, 4.0]), 1).tolist() == [1, 2, 3, 4]
    assert smoothed(np.array([0.0, 3.0, 6.0]), 3).tolist() == [1.5, 3, 4.5]


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "--batch must be above 0, not 0"),
        ({"rate": -1.0}, "--rate must not be negative"),
        ({"average": 1.0}, "--average must be at least 0 and below 1"),
        ({"blend": 1.5}, r"--blend must lie in 0\.\.1, not 1\.5"),
        ({"prompt_depth": -1}, "--prompt-depth must not be negative"),
    ],
)
def test_numbers_out_of_range_are_refused(
    ft_settings: FinetuneSettings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(ft_settings, **change)


def test_a_batch_that_cannot_be_split_is_refused(ft_settings: FinetuneSettings) -> None:
    with pytest.raises(SettingsError, match=r"--batch 16 cannot be split evenly .* give a multiple of 3"):
        finetune(replace(ft_settings, accumulate=3))


def test_a_shard_that_is_not_the_one_of_its_manifest_is_refused(pairs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pairs"
    shutil.copytree(pairs, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["shards"][0]["pairs"] += 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="run it again"):
        PairFolder(copy)


def test_empty_pairs_are_refused(ft_settings: FinetuneSettings) -> None:
    with pytest.raises(DataError, match=r"holds no pair of score 0\.99 or more"):
        finetune(replace(ft_settings, least_score=0.99))


def test_a_start_that_is_no_clip_is_refused(ft_settings: FinetuneSettings, tmp_path: Path) -> None:
    file = tmp_path / "start.pt"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="holds no CLIP image tower"):
        finetune(replace(ft_settings, start=file))


def test_colours_are_told_apart(pairs: Path) -> None:
    assert PairFolder(pairs).nouns == sorted(COLOURS)
