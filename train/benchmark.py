"""How fast a training run is on this machine: images per second, memory, share of what the device can do.

    python -m train.benchmark --architecture vit-b-16 --batch 256 --steps 300
    python -m train.benchmark --architecture vit-l-14 --method prompt_tune --batch 128 --json l14.json

The weights are random and the batches made up, or read from `--pairs` by `--workers` processes as in a real
run. What runs is the training loop itself (`train.core.loop.run_training`). The share of the device's rate is
against what a plain product of large matrices reaches on it in the same run, and against `--card-tflops`, the
number on its data sheet, if that is given.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.checkpoints import ClipConfig
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower
from ovseg_demo.devices import choose_device, fast_dtype
from ovseg_demo.errors import SettingsError
from train.core.files import write_bytes
from train.core.loop import AdaptationModel, PairSource, run_training
from train.core.options import run_command
from train.core.prompts import add_prompts
from train.core.schedule import parameter_groups
from train.data.pair_batch import PairBatch
from train.data.pair_folder import PairFolder
from train.data.pairs import CropPairs
from train.finetune import FinetuneSettings, train_image_tower

SHAPES: dict[str, ClipConfig] = {
    "vit-b-16": ClipConfig(512, 16, 14, 768, 12, 77, 512, 12),
    "vit-l-14": ClipConfig(768, 14, 16, 1024, 24, 77, 768, 12),
    "tiny": ClipConfig(32, 8, 4, 64, 2, 77, 64, 1),
}
WARM_UP = 5
"""Steps before the clock starts."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """Time the training loop on random weights."""

    architecture: Literal["vit-b-16", "vit-l-14", "tiny"] = "vit-b-16"
    """Sizes of the model; tiny is for trying the command."""
    method: Literal["finetune", "prompt_tune"] = "finetune"
    """What is trained."""
    batch: int = 256
    """Images per step."""
    accumulate: int = 1
    """Parts that a batch is computed in."""
    steps: int = 300
    """Steps that are timed."""
    nouns: int = 12000
    """Size of the noun bank (the paper: 12,000 with one caption, 27,000 with five)."""
    depth: int = 3
    """Depth of the mask prompts."""
    pairs: tuple[Path, ...] = ()
    """Folders of pairs to read crops from; made-up batches without."""
    workers: int = 0
    """Processes that read and cut crops (with --pairs)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<number>."""
    card_tflops: float = 0.0
    """bf16 rate of the card by its data sheet, in 10^12 operations per second, without sparsity."""
    json: Path | None = None
    """Write the figures here as well."""

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "steps", "nouns", "depth"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} must be at least 1, not {getattr(self, name)}.")
        if self.batch % self.accumulate:
            raise SettingsError(f"--batch {self.batch} is no multiple of --accumulate {self.accumulate}.")


class SyntheticPairs:
    """The same random batch again and again: what the device does, without the reading of crops."""

    def __init__(self, shape: ClipConfig, part: int, nouns: int, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.noun_of = np.arange(nouns)
        size, tokens = shape.patch * shape.grid, shape.grid**2
        crops = torch.randn(part, 3, size, size, generator=rng)
        mask = (torch.rand(part, tokens, generator=rng) > 0.5).float()
        self.made = PairBatch(crops, mask, torch.randint(nouns, (part, 1), generator=rng))

    def batch(self, rows: np.ndarray, step: int) -> PairBatch:
        """The batch."""
        return self.made


def random_clip(shape: ClipConfig, device: str) -> MaskAdaptedCLIP:
    """A CLIP of these sizes with random weights; its text tower stays on the CPU, unused."""
    clip = replace(shape, text_layers=1).build()
    image, text = ClipImageTower(clip.visual), ClipTextTower(clip)
    model = MaskAdaptedCLIP(image, text, embed_dim=shape.embed_dim, name="random")
    model.image_tower.to(device)  # type: ignore[attr-defined]
    return model


def operations_per_image(shape: ClipConfig, method: str) -> float:
    """Floating-point operations of one training step on one image; a multiplication and an addition are two.

    Backward costs twice the forward where weights learn (their gradients and the activations'), once where
    they are frozen.
    """
    tokens, width = shape.grid**2 + 1, shape.vision_width
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    patches = 2 * shape.grid**2 * 3 * shape.patch**2 * width
    forward = shape.vision_layers * block + patches + 2 * width * shape.embed_dim
    return float(forward * (3 if method == "finetune" else 2))


def matrix_rate(device: str, size: int | None = None) -> float:
    """Operations per second that a plain product of square matrices reaches in the training's number type."""
    side = size or (8192 if device.startswith("cuda") else 512)
    kind = fast_dtype(torch.device(device))
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    best = 0.0
    for _ in range(5):
        _wait(device)
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        _wait(device)
        best = max(best, 4 * 2 * side**3 / (time.perf_counter() - start))
    return best


def peak_memory_bytes(device: str) -> int | None:
    """Most memory that was taken, of a GPU or by this process; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss begins with that of the process that started this one
        lines = status.read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux kilobytes


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def benchmark(settings: BenchmarkSettings) -> dict[str, Any]:
    """Run, print and return the figures."""
    device = choose_device(settings.device)
    shape = SHAPES[settings.architecture]
    torch.manual_seed(0)
    clip = random_clip(shape, device)
    pairs: PairSource
    nouns = settings.nouns
    if settings.pairs:
        folder = PairFolder(*settings.pairs)
        nouns = len(folder.nouns)
        pairs = CropPairs(folder, clip.crop_recipe, shape.patch, jitter=0.1, seed=0)
    else:
        pairs = SyntheticPairs(shape, settings.batch // settings.accumulate, settings.nouns)
    text = functional.normalize(torch.randn(nouns, shape.embed_dim), dim=-1).to(device)
    if settings.method == "prompt_tune":
        add_prompts(clip, settings.depth)
    model = AdaptationModel(clip, text, use_prompts=settings.method == "prompt_tune").to(device)
    if settings.method == "prompt_tune":
        model.requires_grad_(False)
        model.tower.prompts.requires_grad_(True)
        model.log_scale.requires_grad_(True)
    else:
        train_image_tower(model)
    peak = matrix_rate(device)
    seconds = _timed(model, pairs, settings, device)
    rate = settings.batch / float(np.median(seconds))
    done = rate * operations_per_image(shape, settings.method)
    memory = peak_memory_bytes(device)
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{torch.get_num_threads()} threads"
    )
    figures = {
        "architecture": settings.architecture,
        "method": settings.method,
        "device": f"{device} ({name})",
        "number_type": str(fast_dtype(torch.device(device))).removeprefix("torch."),
        "batch": settings.batch,
        "accumulate": settings.accumulate,
        "steps": len(seconds),
        "reads_crops": bool(settings.pairs),
        "images_per_s": round(rate, 2),
        "seconds_per_step": round(float(np.median(seconds)), 5),
        "memory_gib": None if memory is None else round(memory / 2**30, 2),
        "tflops": round(done / 1e12, 4),
        "matrix_tflops": round(peak / 1e12, 4),
        "share_of_matrix_rate": round(done / peak, 4),
        "share_of_data_sheet": round(done / 1e12 / settings.card_tflops, 4) if settings.card_tflops else None,
    }
    for key, value in figures.items():
        print(f"{key.replace('_', ' '):22} {value}")
    if settings.json:
        write_bytes(settings.json, (json.dumps(figures, indent=1) + "\n").encode())
    return figures


def _timed(
    model: AdaptationModel, pairs: PairSource, settings: BenchmarkSettings, device: str
) -> list[float]:
    """Seconds of each step after the first few."""
    numbers = FinetuneSettings(
        (Path("-"),),
        batch=settings.batch,
        accumulate=settings.accumulate,
        # The last step also writes a checkpoint and is not counted.
        steps=WARM_UP + settings.steps + 1,
        rate=1e-6,
        workers=settings.workers if settings.pairs else 0,
        save_every=10**9,
        average=0.0,
        recipe="vit-b-16",
    ).filled()
    at: list[float] = []

    def tick(_: int, __: AdaptationModel) -> None:
        _wait(device)
        at.append(time.perf_counter())

    groups: Any = parameter_groups(model, 0.2)
    with tempfile.TemporaryDirectory() as folder:
        run_training(model, groups, pairs, numbers.loop(pairs.noun_of, device), Path(folder), {}, tick)
    return [float(v) for v in np.diff(at[WARM_UP - 1 : -1])]


if __name__ == "__main__":
    run_command(benchmark, BenchmarkSettings, prog="train.benchmark")
