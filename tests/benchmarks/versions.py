"""The first overlay of a photo by two versions of the program, in turns: seconds, and mIoU of both.

    git worktree add ../old d87700a
    python -m tests.benchmarks.versions --old ../old --photos 40 --threads 1 --number float32

Each version is a process of its own that has loaded its weights and seen the words; per photo both are asked,
one after the other, and which is first alternates. Half of the photos are from MSRC-21, half from COCO
val2017, each with all names of its set. The default arm and the default merge rule of each version are taken.
Then each is asked for ten names that it has not seen on the same photo.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg_demo.evaluation.metrics import PhotoCounts, Tally, confusion_matrix
from tests.benchmarks.machine import facts
from tests.benchmarks.pipeline import SETS, subjects
from tests.benchmarks.readme import measured, table, write_section
from tests.benchmarks.visits import Subject

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("propose", "crop", "embed", "text", "merge")
COLOURS = ("crimson", "teal", "ochre", "indigo", "olive", "coral", "amber", "violet", "ivory", "maroon")
THINGS = (
    "rocking chair",
    "garden gate",
    "paper lantern",
    "stone bridge",
    "wine cellar",
    "tea kettle",
    "bird feeder",
    "fish tank",
    "bus shelter",
    "rope ladder",
)
Line = dict[str, Any]


class Version:
    """One checkout at work in a process of its own."""

    def __init__(self, checkout: Path, threads: int, number: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
        worker = Path(__file__).with_name("version_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(worker), str(threads), number],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[Line] = []
        self.counts: dict[str, list[PhotoCounts]] = {name: [] for name in SETS}

    def ask(
        self, subject: Subject, labels: Path, names: Sequence[str] = (), *, mirrored: bool = False
    ) -> Line:
        """Segment a photo, or its mirror image, with the subject's names or others.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        names = list(names or subject.vocabulary.names)
        photo = str(subject.photo.path.resolve())
        asked = {"photo": photo, "mirrored": mirrored, "names": names, "labels": str(labels)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The worker ended with {self._process.wait()}; its error is above.")
        return dict(json.loads(answer))

    def measure(self, subject: Subject, labels: Path, names: Sequence[str]) -> Line:
        """Segment a photo, and again with new names; keep the seconds, and count the pixels of the first."""
        again = labels.with_name("again.npy")
        line = self.ask(subject, labels)
        words = self.ask(subject, again, names)
        line |= {"words_cpu": words["cpu"], "words_wall": words["wall"]}
        self.lines.append(line)
        confusion = confusion_matrix(
            subject.photo.read_labels(), np.load(labels), len(subject.vocabulary), subject.truth.ignore
        )
        counts = PhotoCounts.of(confusion, np.array(line["found"]), subject.photo.uncertain)
        self.counts[subject.truth.name].append(counts)
        return line

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def median(self, key: str) -> float:
        """Of "cpu", "wall", "words_cpu", "words_wall" or "regions", or of a stage."""
        values = [line[key] if key in line else line["stages"].get(key, 0.0) for line in self.lines]
        return float(np.median(values))


def markdown(old: Version, new: Version, command: str, machine: Line) -> str:
    """Both versions beside each other."""
    rows: list[list[str]] = []
    told = [("cpu", "all, CPU seconds"), ("wall", "all, seconds"), *((s, s) for s in STAGES)]
    told += [("words_cpu", "ten new names, CPU seconds"), ("words_wall", "ten new names, seconds")]
    for key, name in told:
        before, after = old.median(key), new.median(key)
        ratio = f"{before / after:.2f}" if min(before, after) > 0.001 else ""
        rows.append([name, f"{before:.3f}", f"{after:.3f}", ratio])
    for name in SETS:
        if old.counts[name]:
            miou = [Tally(version.counts[name]).figures()["miou"][0] for version in (old, new)]
            rows.append([f"mIoU {name}", f"{miou[0]:.1f}", f"{miou[1]:.1f}", ""])
    rows.append(["regions", f"{old.median('regions'):.0f}", f"{new.median('regions'):.0f}", ""])
    per_photo = [a["cpu"] / b["cpu"] for a, b in zip(old.lines, new.lines, strict=True)]
    low, middle, high = np.quantile(per_photo, [0.1, 0.5, 0.9])
    more = f"; CPU seconds of a photo, old by new: median {middle:.2f}, 80 % from {low:.2f} to {high:.2f}"
    text = measured(command, machine, f"; {len(old.lines)} photos{more}")
    return text + "\n\n" + table(["median", "old", "new", "ratio"], rows)


def ten_names(number: int) -> list[str]:
    """Ten names that no photo before was asked for and that no list holds."""
    colour = COLOURS[number % len(COLOURS)]
    return [f"{colour} {thing} {number // len(COLOURS) or ''}".strip() for thing in THINGS]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, or write into the README beside this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("--photos", type=int, default=20, help="at most 40")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--number", choices=("fast", "float32"), default="fast", help="float32: no bfloat16")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    photos = subjects(options.data, options.photos)
    versions = [Version(checkout, options.threads, options.number) for checkout in (options.old, ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.npy"
        # Not counted: the words of both sets, and what a first call sets up.
        for subject in photos[:2]:
            for version in versions:
                version.ask(subject, labels, mirrored=True)
                version.ask(subject, labels, ten_names(99), mirrored=True)
        for number, subject in enumerate(photos):
            for version in versions if number % 2 else versions[::-1]:
                version.measure(subject, labels, ten_names(number))
            seconds = [f"{version.lines[-1]['cpu']:.2f}" for version in versions]
            print(subject.key, *seconds, flush=True)
    for version in versions:
        version.close()
    asked = f"--photos {options.photos} --threads {options.threads} --number {options.number}"
    command = f"python -m tests.benchmarks.versions --old ../old {asked}"
    text = markdown(*versions, command, {**facts(), "threads": options.threads})
    print(text)
    if options.readme:
        write_section(f"versions {options.number} {options.threads}", text)


if __name__ == "__main__":
    main()
