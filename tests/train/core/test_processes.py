"""Several processes give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.synthetic_pairs import curve, weights_of
from train.finetune import FinetuneSettings, finetune
from train.prompt_tune import PromptTuneSettings, prompt_tune

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


def torchrun(module: str, *options: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    strict = {"PYTHONWARNINGS": "error:torch.distributed:FutureWarning"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **strict}
    subprocess.run([*command, "-m", module, *options], cwd=ROOT, check=True, env=environment, timeout=900)


def test_two_processes_have_the_loss_curve_of_one(ft_settings: FinetuneSettings, tmp_path: Path) -> None:
    one = replace(ft_settings, accumulate=2, average=0.9, float32=True)
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
        "--float32",
    ]
    torchrun("train.finetune", *options, "--accumulate", "2", "--out", str(tmp_path / "two"))
    names = ("step", "loss", "top1", "norm")
    np.testing.assert_allclose(curve(tmp_path / "two", *names), curve(tmp_path / "one", *names), rtol=2e-3)
    ours, theirs = (weights_of(tmp_path / name / "adapted.safetensors") for name in ("two", "one"))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=2e-4)


@pytest.mark.slow
def test_two_processes_share_the_cached_features_of_the_mini_tower(
    pairs: Path, small_clip: Path, tmp_path: Path
) -> None:
    shared = {
        "model": str(small_clip),
        "batch": 8,
        "steps": 4,
        "distil": 1.0,
        "depth": 1,
        "average": 0.0,
        "float32": True,
    }
    prompt_tune(PromptTuneSettings((pairs,), tmp_path / "one", **shared))  # type: ignore[arg-type]
    options = ["--float32", *(f"--{name}={value}" for name, value in shared.items() if name != "float32")]
    torchrun("train.prompt_tune", "--pairs", str(pairs), "--out", str(tmp_path / "two"), *options)
    names = ("step", "loss", "distil", "top1")
    np.testing.assert_allclose(curve(tmp_path / "two", *names), curve(tmp_path / "one", *names), rtol=2e-3)
