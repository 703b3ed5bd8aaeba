"""Seconds that a ViT-B/16 takes to name regions: one look at the photo against one blanked crop a region.

    python -m tests.benchmarks.context_speed --regions 50 --threads 2

Random weights: the work does not depend on them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.pooled_arm import PooledCLIP
from ovseg_demo.clip.towers import ClipImageTower


def main() -> None:
    """Print the seconds of both arms, the best of three rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--regions", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    visual = VisionTransformer(224, 16, 768, 12, 12, 4.0, output_dim=512).eval()
    vanilla = MaskAdaptedCLIP(ClipImageTower(visual), nn.Identity(), embed_dim=512)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    masks = np.zeros((options.regions, 480, 640), dtype=np.bool_)
    for mask in masks:
        top, left = rng.integers(0, 300), rng.integers(0, 400)
        mask[top : top + rng.integers(20, 180), left : left + rng.integers(20, 240)] = True
    for name, clip in (("vanilla", vanilla), ("context", PooledCLIP(vanilla))):
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            clip.encode_photo_regions(photo, masks)
            seconds.append(time.perf_counter() - start)
        print(f"{name}: {min(seconds):.2f} s for {options.regions} regions")


if __name__ == "__main__":
    main()
