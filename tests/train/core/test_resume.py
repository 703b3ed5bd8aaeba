"""A killed run resumes to the same weights, or says why it cannot."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ovseg_demo.errors import OutputError
from tests.train.synthetic_pairs import curve, weights_of, write_pairs
from train.core.checkpointing import ResumeError, load_training_state, save_training_state
from train.evaluation.curves import read_log
from train.finetune import FinetuneSettings, finetune

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_killed_and_resumed_equals_uninterrupted_step_for_step(
    ft_settings: FinetuneSettings, pairs: Path, vit: Path, tmp_path: Path
) -> None:
    whole = replace(ft_settings, steps=40, save_every=4, average=0.9)
    finetune(replace(whole, out=tmp_path / "whole"))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "train.finetune", "--pairs", str(pairs), "--out", str(out)]
    command += ["--model", str(vit), "--rate", "1e-3", "--batch", "16", "--steps", "40", "--warmup", "2"]
    command += ["--save-every", "4", "--weight-decay", "0.1", "--distil", "0", "--average", "0.9"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        end = time.monotonic() + 600
        log = out / "log.jsonl"
        while process.poll() is None and time.monotonic() < end:
            if log.exists() and log.read_text().count("\n") >= 9:
                break
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = len(read_log(log))
    assert 9 <= done < 40, "it was to be killed on its way"
    finetune(replace(whole, out=out))
    names = ("step", "loss", "top1", "rate", "norm")
    assert curve(out, *names) == curve(tmp_path / "whole", *names)
    ours, theirs = (weights_of(tmp_path / name / "adapted.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_finished_run_is_not_run_again(ft_settings: FinetuneSettings) -> None:
    finetune(ft_settings)
    log = (ft_settings.out / "log.jsonl").read_text()
    finetune(ft_settings)
    assert (ft_settings.out / "log.jsonl").read_text() == log


@pytest.mark.parametrize(
    ("change", "named"),
    [({"rate": 2e-3}, r"rate=0\.001 and not 0\.002"), ({"seed": 5}, "seed=0 and not 5")],
)
def test_going_on_with_other_settings_is_refused(
    ft_settings: FinetuneSettings, change: dict[str, Any], named: str
) -> None:
    finetune(ft_settings)
    with pytest.raises(ResumeError, match=f"{named}: give the same setting to go on, or another folder"):
        finetune(replace(ft_settings, **change))


def test_going_on_with_other_pairs_is_refused(ft_settings: FinetuneSettings, tmp_path: Path) -> None:
    finetune(ft_settings)
    finetune(replace(ft_settings, save_every=7, workers=1))  # changes nothing that is computed
    with pytest.raises(ResumeError, match="was made with pairs="):
        finetune(replace(ft_settings, pairs=(write_pairs(tmp_path / "other", 20),)))


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
        with pytest.raises(OutputError, match=r"state\.pt cannot be written .*; free some space"):
            save_training_state(path, module, optimiser, None, 4, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == good
    assert load_training_state(path, module, optimiser, None, {}) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.pt"]
