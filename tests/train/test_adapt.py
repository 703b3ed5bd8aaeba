"""Fine-tuning and prompt tuning: what moves, what a resume gives, what several processes give."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
from tests.train.drawn_pairs import COLOURS, write_pairs, write_vit
from train.adapt import AdaptationError, check_frozen, frozen_digest, pair_loss
from train.checkpointing import ResumeError, load_training_state, save_training_state
from train.curves import read_log, smoothed
from train.data.sources import DataError
from train.draw import PairDraw
from train.feed import feed
from train.finetune import FinetuneSettings, finetune
from train.pair_folder import PairFolder
from train.pairs import CropPairs
from train.prompt_tune import PromptTuneSettings, prompt_tune

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same sums in the same order, here and in the processes that tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("vit") / "tiny.pt")


@pytest.fixture
def settings(pairs: Path, vit: Path, tmp_path: Path) -> FinetuneSettings:
    numbers = {"rate": 1e-3, "batch": 16, "steps": 12, "warmup": 2, "save_every": 5, "weight_decay": 0.1}
    return FinetuneSettings((pairs,), tmp_path / "ft", model=str(vit), distil=0.0, **numbers)  # type: ignore[arg-type]


def prompt_settings(settings: FinetuneSettings, **others: Any) -> PromptTuneSettings:
    shared = {name: getattr(settings, name) for name in ("pairs", "out", "model", "batch", "steps", "distil")}
    return PromptTuneSettings(**{**shared, "rate": 0.05, "warmup": 2, "depth": 2, **others})


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_clip(path).state_dict()


def curve(folder: Path, *names: str) -> list[list[float]]:
    return [[row[name] for name in names] for row in read_log(folder / "log.jsonl")]


# --- what is learned and what moves ----------------------------------------------------------------------


def test_finetuning_learns_and_leaves_the_text_tower_alone(settings: FinetuneSettings, vit: Path) -> None:
    finetune(replace(settings, steps=30))
    losses = [row[0] for row in curve(settings.out, "loss")]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    before, after = weights_of(vit), weights_of(settings.out / "adapted.safetensors")
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("image_tower") for name in moved)
    assert not any(name.startswith("text_tower") for name in moved)


def test_prompt_tuning_moves_the_prompts_alone(settings: FinetuneSettings, vit: Path) -> None:
    prompt_tune(prompt_settings(settings, steps=30))
    losses = [row[0] for row in curve(settings.out, "loss")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    before, after = weights_of(vit), weights_of(settings.out / "adapted.safetensors")
    prompts = after.pop("image_tower.prompts.mask_embedding")
    assert prompts.shape == (2, 16, 64)
    assert prompts.std() > 0.03  # they started at 0.02
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_either_goes_on_from_the_other(settings: FinetuneSettings) -> None:
    first, second = settings.out.with_name("first"), settings.out.with_name("second")
    prompt_tune(prompt_settings(settings, out=first))
    finetune(replace(settings, start=first / "adapted.safetensors", out=second))
    before, after = (weights_of(folder / "adapted.safetensors") for folder in (first, second))
    name = "image_tower.prompts.mask_embedding"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["image_tower.visual.proj"], after["image_tower.visual.proj"])


def test_tower_and_prompts_may_be_trained_together(settings: FinetuneSettings, vit: Path) -> None:
    finetune(replace(settings, prompt_depth=3, prompt_rate=0.05))
    after = weights_of(settings.out / "adapted.safetensors")
    assert after["image_tower.prompts.mask_embedding"].std() > 0.03
    assert not torch.equal(weights_of(vit)["image_tower.visual.proj"], after["image_tower.visual.proj"])


def test_a_frozen_part_that_moved_is_told() -> None:
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    before = frozen_digest(module)
    module.weight.data += 1
    check_frozen(module, before)
    module.bias.data += 1
    with pytest.raises(AdaptationError, match="bias was to stay frozen"):
        check_frozen(module, before)


def test_a_loss_that_is_no_number_stops_the_run(settings: FinetuneSettings) -> None:
    with pytest.raises(AdaptationError, match=r"The loss is nan at step \d+: give a lower --rate"):
        finetune(replace(settings, rate=1e30, warmup=0, steps=30))


def test_pairs_of_one_noun_are_not_each_others_negatives() -> None:
    text = torch.eye(3)
    nouns = torch.tensor([0, 0, 1])
    scale = torch.tensor(20.0).log()
    perfect = pair_loss(text[nouns], text, nouns, scale)
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
    assert pair_loss(image, text, alone, scale).item() == pytest.approx(wanted.item(), rel=1e-5)


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
    draw = PairDraw(noun_of, batch=7, most_per_noun=20, seed=3)
    for epoch in (0, 1):
        steps = range(epoch * draw.steps_per_epoch, (epoch + 1) * draw.steps_per_epoch)
        rows = np.concatenate([draw.rows(step) for step in steps])
        assert rows.tolist() == slow_epoch(noun_of, 20, 3, epoch)[: len(rows)]
        assert len(rows) == draw.per_epoch // 7 * 7
        assert np.bincount(noun_of[rows]).max() <= 20
    assert not np.array_equal(draw.rows(0), draw.rows(draw.steps_per_epoch))
    assert draw.steps(2.0) == 2 * draw.steps_per_epoch


def test_fewer_pairs_than_a_batch_are_drawn_again() -> None:
    draw = PairDraw(np.array([0, 1, 1]), batch=8, most_per_noun=5, seed=0)
    assert len(draw.rows(0)) == 8
    assert draw.steps(3.0) == 1


def test_batches_made_ahead_are_the_same(pairs: Path, vit: Path) -> None:
    clip = load_clip(vit)
    maker = CropPairs(PairFolder(pairs), clip.crop_recipe, clip.image_tower.patch, jitter=0.1, seed=0)
    parts = [(np.arange(start, start + 6), step) for step, start in enumerate((0, 20, 40))]
    here = list(feed(maker, parts, workers=0, device="cpu"))
    ahead = list(feed(maker, parts, workers=2, device="cpu"))
    assert len(here) == len(ahead) == 3
    for one, other in zip(here, ahead, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.token_mask, other.token_mask)
        assert torch.equal(one.nouns, other.nouns)
    again = maker.batch(np.array([21, 20]), 1)  # another company, another order
    assert torch.equal(again.inputs[1], here[1].inputs[0])
    assert not torch.equal(maker.batch(np.array([20]), 2).inputs[0], here[1].inputs[0])


# --- going on after a kill --------------------------------------------------------------------------------


def test_killed_and_resumed_equals_uninterrupted_step_for_step(
    settings: FinetuneSettings, pairs: Path, vit: Path, tmp_path: Path
) -> None:
    whole = replace(settings, steps=120, save_every=10, average=0.9)
    finetune(replace(whole, out=tmp_path / "whole"))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "train.finetune", "--pairs", str(pairs), "--out", str(out)]
    command += ["--model", str(vit), "--rate", "1e-3", "--batch", "16", "--steps", "120", "--warmup", "2"]
    command += ["--save-every", "10", "--weight-decay", "0.1", "--distil", "0", "--average", "0.9"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        end = time.monotonic() + 120
        log = out / "log.jsonl"
        while process.poll() is None and time.monotonic() < end:
            if log.exists() and log.read_text().count("\n") >= 23:
                break
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = len(read_log(log))
    assert 23 <= done < 120, "it was to be killed on its way"
    finetune(replace(whole, out=out))
    names = ("step", "loss", "top1", "rate", "norm")
    assert curve(out, *names) == curve(tmp_path / "whole", *names)
    ours, theirs = (weights_of(tmp_path / name / "adapted.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_finished_run_is_not_run_again(settings: FinetuneSettings) -> None:
    finetune(settings)
    log = (settings.out / "log.jsonl").read_text()
    finetune(settings)
    assert (settings.out / "log.jsonl").read_text() == log


@pytest.mark.parametrize(
    ("change", "named"),
    [({"rate": 2e-3}, r"rate=0\.001 and not 0\.002"), ({"seed": 5}, "seed=0 and not 5")],
)
def test_going_on_with_other_settings_is_refused(
    settings: FinetuneSettings, change: dict[str, Any], named: str
) -> None:
    finetune(settings)
    with pytest.raises(ResumeError, match=f"{named}: give the same setting to go on, or another folder"):
        finetune(replace(settings, **change))


def test_going_on_with_other_pairs_is_refused(settings: FinetuneSettings, tmp_path: Path) -> None:
    finetune(settings)
    finetune(replace(settings, save_every=7, workers=1))  # changes nothing that is computed
    with pytest.raises(ResumeError, match="was made with pairs="):
        finetune(replace(settings, pairs=(write_pairs(tmp_path / "other", 20),)))


def saved(folder: Path, width: int = 2) -> tuple[torch.nn.Module, torch.optim.Optimizer, Path]:
    module = torch.nn.Linear(width, width)
    return module, torch.optim.AdamW(module.parameters()), folder / "state.pt"


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    module, optimiser, path = saved(tmp_path)
    save_training_state(path, module, optimiser, None, 3, {})
    other, its_optimiser, _ = saved(tmp_path, width=3)
    with pytest.raises(ResumeError, match="of another architecture than the model"):
        load_training_state(path, other, its_optimiser, None, {})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"no checkpoint"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    module, optimiser, path = saved(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ResumeError, match=r"state\.pt cannot be read as a checkpoint; delete it"):
        load_training_state(path, module, optimiser, None, {})


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    module, optimiser, path = saved(tmp_path, width=300)
    save_training_state(path, module, optimiser, None, 3, {})
    good = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # as if the disk had no more
    try:
        with pytest.raises(ResumeError, match=r"state\.pt could not be written .*; the last one is kept"):
            save_training_state(path, module, optimiser, None, 4, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == good
    assert load_training_state(path, module, optimiser, None, {}) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.pt"]


# --- several processes ------------------------------------------------------------------------------------


def torchrun(module: str, *options: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*command, "-m", module, *options], cwd=ROOT, check=True, env=environment, timeout=180)


@pytest.mark.slow
def test_two_processes_walk_the_curve_of_one(settings: FinetuneSettings, tmp_path: Path) -> None:
    one = replace(settings, accumulate=2, average=0.9)
    finetune(replace(one, out=tmp_path / "one"))
    options = ["--pairs", *map(str, one.pairs), "--model", one.model, "--rate", "1e-3", "--batch", "16"]
    options += [
        "--steps",
        "12",
        "--warmup",
        "2",
        "--weight-decay",
        "0.1",
        "--distil",
        "0",
        "--average",
        "0.9",
    ]
    torchrun("train.finetune", *options, "--accumulate", "2", "--out", str(tmp_path / "two"))
    names = ("step", "loss", "top1", "norm")
    np.testing.assert_allclose(curve(tmp_path / "two", *names), curve(tmp_path / "one", *names), rtol=2e-3)
    ours, theirs = (weights_of(tmp_path / name / "adapted.safetensors") for name in ("two", "one"))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=2e-4)


@pytest.mark.slow
def test_two_processes_share_the_kept_features_of_the_mini_tower(
    pairs: Path, small_clip: Path, tmp_path: Path
) -> None:
    shared = {"model": str(small_clip), "batch": 8, "steps": 4, "distil": 1.0, "depth": 1, "average": 0.0}
    prompt_tune(PromptTuneSettings((pairs,), tmp_path / "one", **shared))  # type: ignore[arg-type]
    options = [f"--{name}={value}" for name, value in shared.items()]
    torchrun("train.prompt_tune", "--pairs", str(pairs), "--out", str(tmp_path / "two"), *options)
    names = ("step", "loss", "distil", "top1")
    np.testing.assert_allclose(curve(tmp_path / "two", *names), curve(tmp_path / "one", *names), rtol=2e-3)


# --- what is shown ----------------------------------------------------------------------------------------


def test_a_run_leaves_a_log_curves_and_a_board(settings: FinetuneSettings) -> None:
    finetune(settings)
    rows = [json.loads(line) for line in (settings.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {"step", "loss", "distil", "top1", "rate", "norm", "pairs_per_s"}
    with Image.open(settings.out / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 3
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(settings.out / "tensorboard"))
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
        ({"prompt_depth": -1}, "--prompt-depth must not be negative"),
    ],
)
def test_numbers_out_of_range_are_refused(
    settings: FinetuneSettings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(settings, **change)


def test_a_batch_that_cannot_be_split_is_refused(settings: FinetuneSettings) -> None:
    with pytest.raises(SettingsError, match=r"--batch 16 cannot be split evenly .* give a multiple of 3"):
        finetune(replace(settings, accumulate=3))


def test_empty_pairs_are_refused(settings: FinetuneSettings) -> None:
    with pytest.raises(DataError, match=r"holds no pair of score 0\.99 or more"):
        finetune(replace(settings, least_score=0.99))


def test_a_start_that_is_no_clip_is_refused(settings: FinetuneSettings, tmp_path: Path) -> None:
    file = tmp_path / "start.pt"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="holds no CLIP image tower"):
        finetune(replace(settings, start=file))


def test_colours_are_told_apart(pairs: Path) -> None:
    assert PairFolder(pairs).nouns == sorted(COLOURS)
