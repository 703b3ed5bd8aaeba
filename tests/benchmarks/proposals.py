"""How many true segments the proposers find, at what cost, beside the packages' own automatic generator.

    python -m tests.benchmarks.proposals --photos 8 --set coco-train --json proposals.json

A true segment is found if some proposed mask has an IoU with it of at least 0.5 (or 0.75). CPU seconds are
those of all threads, so that they can be compared on a busy machine too. Of msrc21 and coco-val, the photos
are those of tests.benchmarks.pipeline, and what that has measured of the standard generator is used again.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ovseg_demo.imaging import resize_to_side
from ovseg_demo.proposals import load_proposer, propose
from tests.benchmarks.machine import facts
from tests.benchmarks.pipeline import SETS, subjects
from tests.benchmarks.plots import Lines, draw_lines
from tests.benchmarks.readme import measured, table, write_section
from tests.benchmarks.straightforward import StandardGenerator
from tests.benchmarks.visits import Book, kept_masks, unpack
from train.data.truth import TRUTH_SETS, TruthPhoto
from train.evaluation.proposers import proposal_code

Masks = NDArray[np.bool_]
Generator = Callable[[NDArray[np.uint8]], Masks]

MIN_AREA_FRACTION = 0.003  # of the photo; smaller true segments are not asked for (900 pixels of 640 x 480)
LARGE_FRACTION = 0.01
WORKING_SIDE_PX = 1024
OURS = ("768:normal", "768:low", "768:high", "512:normal", "1024:normal", "1024:normal:0.85:0.7")
"""The default, other densities and sizes, and the numbers that were the default before."""


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

    def add(self, line: dict[str, Any]) -> None:
        """Take a photo that was measured."""
        self.best_iou += line["best_iou"]
        self.area_fraction += line["area_fraction"]
        for name in ("masks", "prompts", "covered", "cpu_s", "wall_s"):
            getattr(self, name).append(line[name])

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
        self._lock = threading.Lock()  # prompts are decoded side by side
        self.prompts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, image: Any, points: torch.Tensor) -> Any:
        """See PointDecoder.decode."""
        with self._lock:
            self.prompts += len(points)
        return self._decoder.decode(image, points)


def ours(spec: str) -> tuple[Generator, CountingDecoder]:
    """This project's MobileSAM at SIZE:DENSITY, and at another stability and overlap where they are given."""
    size, density, *numbers = spec.split(":")
    proposer: Any = load_proposer("mobile-sam", size=int(size), density=density)
    if numbers:
        stability, overlap = map(float, numbers)
        proposer.plan = replace(proposer.plan, min_stability=stability, max_overlap=overlap)
    proposer.decoder = counter = CountingDecoder(proposer.decoder)
    return (lambda image: propose(proposer, image).masks), counter


def standard(side: int) -> Generator:
    """The package's automatic mask generator with a grid of side x side points and its own thresholds."""
    generator = StandardGenerator(side)
    return lambda image: generator(image).masks


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


def measure(
    run: Generator, prompts: CountingDecoder | int, image: NDArray[np.uint8], truth: Masks
) -> dict[str, Any]:
    """Time one generator on one photo and note what it found."""
    before = prompts.prompts if isinstance(prompts, CountingDecoder) else 0
    wall, cpu = time.perf_counter(), time.process_time()
    masks = run(image)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        **found_by(masks, truth),
        "prompts": prompts.prompts - before if isinstance(prompts, CountingDecoder) else prompts,
    }


def found_by(masks: Masks, truth: Masks) -> dict[str, Any]:
    """What (K, h, w) masks find of (S, h, w) true segments."""
    return {
        "best_iou": [round(float(iou), 4) for iou in best_ious(masks, truth)],
        "area_fraction": [round(float(area), 5) for area in truth.mean(axis=(1, 2))],
        "masks": len(masks),
        "covered": float(masks.any(axis=0).mean()) if len(masks) else 0.0,
    }


def evenly(photos: tuple[TruthPhoto, ...], count: int) -> Iterator[TruthPhoto]:
    """`count` photos spread over the set, the same ones every time."""
    for index in np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int):
        yield photos[index]


def photos_of(set_name: str, data: Path, count: int) -> list[TruthPhoto]:
    """The photos of the pipeline benchmark if it has this set, else photos spread over the set."""
    if set_name in SETS:
        return [one.photo for one in subjects(data, 40) if one.truth.name == set_name][:count]
    return list(evenly(TRUTH_SETS[set_name](data).photos, count))


def kept_by_pipeline(runs: Path, key: str, side: int, truth: Masks) -> dict[str, Any] | None:
    """What the pipeline benchmark has measured of the standard generator; None if it has not."""
    line = Book(runs / "pipeline.jsonl").lines.get((key, f"grid{side}"))
    path = kept_masks(runs / "masks", key, side)
    if line is None or not path.is_file():
        return None
    masks = unpack(path, truth.shape[1:]).masks
    return {
        "wall_s": line["wall"]["propose"],
        "cpu_s": line["cpu"]["propose"],
        **found_by(masks, truth),
        "prompts": side * side,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run what is not in the book yet and print one line per generator."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=int, default=4)
    add("--set", default="coco-train", choices=sorted(TRUTH_SETS), help="only coco-train may be tuned on")
    add("--data", type=Path, default=Path("../shared"))
    add("--ours", nargs="*", default=list(OURS), metavar="SIZE:DENSITY[:STABILITY:OVERLAP]")
    add("--grids", nargs="*", type=int, default=[8, 16, 32], help="points per side of the standard generator")
    add("--report", action="store_true", help="measure nothing, only report what was measured")
    add("--runs", type=Path, default=Path("runs/benchmarks"), help="where measurements are kept")
    add("--json", type=Path)
    add("--chart", type=Path, help="PNG: recall against seconds")
    add("--readme", action="store_true", help="write the table into the README beside this file")
    options = parser.parse_args(arguments)

    book = Book(options.runs / "proposals.jsonl")
    makers: dict[str, Callable[[], tuple[Generator, CountingDecoder | int]]] = {}
    for spec in options.ours:
        makers[f"ours {spec}"] = partial(ours, spec)
    for side in options.grids:
        makers[f"standard {side} x {side}"] = partial(_standard, side)
    made: dict[str, tuple[Generator, CountingDecoder | int]] = {}
    tallies = {name: Tally(name) for name in makers}
    for photo in photos_of(options.set, options.data, options.photos):
        key = f"{options.set}/{photo.path.stem}"
        missing = [name for name in makers if not _current(book.lines.get((key, name)))]
        if options.report:
            missing = []
        if missing:
            image = resize_to_side(photo.read(), WORKING_SIDE_PX)
            truth = true_segments(photo, options.set, image.shape[:2])
        for name in missing:
            side = int(name.split()[1]) if name.startswith("standard") else 0
            found = kept_by_pipeline(options.runs, key, side, truth) if side else None
            if found is None:
                if name not in made:
                    made[name] = makers[name]()
                found = measure(*made[name], image, truth)
            line = book.add(key, name, {**found, "code": proposal_code()})
            print(key, name, f"{line['wall_s']:.1f} s", flush=True)
        for name, tally in tallies.items():
            if line := book.lines.get((key, name)):
                tally.add(line)
    report(options, [tally for tally in tallies.values() if tally.masks])


def _current(line: dict[str, Any] | None) -> bool:
    """Whether it was measured, and with today's code unless the code is not ours."""
    return line is not None and (line["contender"].startswith("standard") or line["code"] == proposal_code())


def _standard(side: int) -> tuple[Generator, int]:
    return standard(side), side * side


def report(options: argparse.Namespace, tallies: list[Tally]) -> None:
    """Print the table, write JSON and chart."""
    rows = [tally.summary() for tally in tallies]
    if not rows:
        return
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
    about = {"set": options.set, "min_area_fraction": MIN_AREA_FRACTION, **facts()}
    if len({row["photos"] for row in rows}) > 1:
        print("Not all generators have seen the same photos: run the command without --report.")
    print(f"{options.set}: {rows[0]['photos']} photos, {rows[0]['segments']} segments")
    print("generator".ljust(28) + "".join(name.rjust(16) for name in columns))
    for row in rows:
        print(row["generator"].ljust(28) + "".join(f"{row[name]:16.3f}" for name in columns))
    if options.readme:
        head = f"{rows[0]['photos']} photos, {rows[0]['segments']} segments"
        cells = [[row["generator"], *(f"{row[name]:.3g}" for name in columns)] for row in rows]
        command = f"python -m tests.benchmarks.proposals --set {options.set} --photos {options.photos}"
        command += "".join([" --grids", *(f" {side}" for side in options.grids)])
        told = measured(command, about, f"; {head}")
        write_section(f"proposals {options.set}", f"{told}\n\n{table(['generator', *columns], cells)}")
    if options.json:
        whole = {"about": about, "rows": rows, "photos": [asdict(tally) for tally in tallies]}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        families = dict.fromkeys(row["generator"].split(" ")[0] for row in rows)
        points = {
            f"{family}, IoU {percent / 100}": [
                (row["cpu_s"], row[f"recall_{percent}"])
                for row in rows
                if row["generator"].startswith(family)
            ]
            for family in families
            for percent in (50, 75)
        }
        below = f"{rows[0]['photos']} photos of {options.set}, {rows[0]['segments']} segments"
        title = "True segments found, against the time it takes"
        draw_lines(Lines(title, below, "CPU seconds a photo", "recall", points, log_x=True), options.chart)


if __name__ == "__main__":
    main()
