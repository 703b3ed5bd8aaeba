"""Memory and seconds of the published system at full size, with random weights.

    python -m tests.benchmarks.published_system

Writes the file that a published one would be (Swin-B MaskFormer, CLIP ViT-L/14, mask prompts of depth 3;
float32, 2.1 GB, in a temporary folder), loads it as a user does, and takes one photo through the published
protocol. Random masks are the worst case: all 100 have pixels, and CLIP has to look at each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from ovseg_demo.progress import Progress, map_steps, run_to_end
from ovseg_demo.proposals.maskformer.coco import SWIN_B
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX
from ovseg_demo.segmenter import Segmenter
from tests.tiny_full import save_full, segmenter_weights
from train.benchmark import peak_memory_bytes

PHOTO = Path(__file__).parents[2] / "examples" / "street.jpg"
NAMES = "building, road, sky, person, car, tree"


def full_size_weights() -> dict[str, Tensor]:
    """Every weight of `ovseg_swinbase_vitL14_ft_mpt.pth`, random."""
    vision = CLIPVisionCfg(layers=24, width=1024, patch_size=14, image_size=224)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=768, heads=12, layers=12)
    clip = CLIP(768, vision, text, quick_gelu=True).state_dict()
    clip["visual.mask_embedding"] = 0.02 * torch.randn(3, 256, 1024)
    segmenter = segmenter_weights(SWIN_B, text_width=768, class_hidden=1024, noise=0.0)
    return {**segmenter, **{CLIP_PREFIX + key: value for key, value in clip.items()}}


def peak_gb() -> float:
    """Most memory this process has held so far, in GB."""
    return (peak_memory_bytes("cpu") or 0) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--regions", type=int, default=100, help="so many masks at most are shown to CLIP")
    parser.add_argument("--templates", default="vild", choices=("vild", "single"))
    parser.add_argument("--file", type=Path, help="a complete OVSeg file, instead of random weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.file:
        measure(options.file, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ovseg_swinbase_vitL14_random.pth"
        save_full(path, full_size_weights())
        print(f"{path.stat().st_size / 1e9:.2f} GB of random weights")
        # In a process of its own, whose memory is that of the demo alone.
        context = torch.multiprocessing.get_context("spawn")
        process = context.Process(target=measure, args=(path, options))
        process.start()
        process.join()


def measure(path: Path, options: argparse.Namespace) -> None:
    """Load, segment once, and print what it took."""
    from ovseg_demo.settings import Settings

    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    settings = Settings(mask_threshold=0.4, ensemble=0.7, max_regions=options.regions)
    segmenter = Segmenter.from_pretrained(path, proposer="maskformer", device="cpu", settings=settings)
    print(f"segmenter loaded: {time.perf_counter() - start:.1f} s, peak {peak_gb():.2f} GB", flush=True)
    start = time.perf_counter()
    segmenter.classifier("adapted")
    print(f"CLIP loaded:      {time.perf_counter() - start:.1f} s, peak {peak_gb():.2f} GB", flush=True)
    steps = segmenter.stream(options.photo, NAMES, merge="benchmark", templates=options.templates)
    stage, since, spent = "read", clock(), dict[str, float]()

    def clocked(progress: Progress) -> None:
        nonlocal stage, since
        if progress.stage != stage:
            spent[stage], stage, since = clock() - since, progress.stage, clock()

    result = run_to_end(map_steps(steps, clocked))
    print(f"one photo of {result.size[0]} x {result.size[1]}, {len(result.regions)} regions:")
    print(f"  stage     seconds  of processors, {options.threads} threads")
    for name, (wall, processor) in spent.items():
        print(f"  {name:8} {wall:8.1f} {processor:8.1f}")
    print(f"peak {peak_gb():.2f} GB")


def clock() -> NDArray[np.float64]:
    """Seconds on the wall, and of this process on all processors, which a busy machine leaves alone."""
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    main()
