"""From a photo and words to the overlay: the project's pipeline beside the straightforward composition.

    python -m tests.benchmarks.pipeline --photos 8 --json pipeline.json --chart pipeline.png

Half of the photos are from MSRC-21, half from COCO val2017, each with all names of its set. Per photo, one
after the other: ours, the package's automatic generator with 16 x 16 points and, for the first photos, with
32 x 32. Ratios are per photo and their median is given; mIoU is over the same photos, with the same CLIP and
merge rule.

Every measurement is kept in a file (--runs), so that a comparison of hours can be stopped and
resumed; --again measures ours anew, --fresh both. Ratios on the wall are worth something only where both were
measured on a machine as quiet. Where code or weights have changed since, ours is measured anew and the
straightforward masks, which do not depend on them, are only named again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_demo.clip import load_clip
from ovseg_demo.naming.classifier import Classifier
from ovseg_demo.proposals import load_proposer
from tests.benchmarks.pipeline_report import chart, markdown, report, show
from tests.benchmarks.processes import memory_of_photo_bytes, page_start_s
from tests.benchmarks.readme import write_section
from tests.benchmarks.visits import Book, Line, Ours, Straightforward, Subject, pipeline_code
from train.data.truth import TRUTH_SETS
from train.evaluation.runner import class_vocabulary, evenly_spaced

SETS = ("msrc21", "coco-val")
NAME_LISTS = Path(__file__).resolve().parents[2] / "train" / "data" / "class_lists"


def subjects(root: Path, count: int) -> list[Subject]:
    """`count` photos, the sets in turn, each set's spread evenly over it; the first ones of a longer list."""
    columns = []
    for name in SETS:
        truth = TRUTH_SETS[name](root)
        vocabulary = class_vocabulary(truth)
        # Always the places of a list of 20, so that 8 photos are the first 8 of the 40.
        places = [evenly_spaced(truth.photos, 20)[i] for i in np.random.default_rng(0).permutation(20)]
        columns.append([Subject(photo, truth, vocabulary) for photo in places])
    return [subject for pair in zip(*columns, strict=True) for subject in pair][:count]


def many_names(count: int) -> list[str]:
    """`count` different names from the long class lists of the published benchmarks."""
    names: dict[str, None] = {}
    for file in sorted(NAME_LISTS.glob("*.txt")):
        for line in file.read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                names.setdefault(line.split("|")[0].split(",")[0].strip().lower())
    return list(names)[:count]


def new_words(number: int) -> list[str]:
    """Four names that no photo before was asked for and that no list holds."""
    colours = ("crimson", "teal", "ochre", "indigo", "olive", "coral", "amber", "violet", "ivory", "maroon")
    things = ("rocking chair", "garden gate", "paper lantern", "stone bridge")
    return [f"{colours[number % len(colours)]} {thing} {number // len(colours) or ''}" for thing in things]


def measure(options: argparse.Namespace) -> Book:
    """Walk through the photos; what is in the book already is not measured again."""
    book = Book(options.runs / "pipeline.jsonl")
    classifiers = {arm: Classifier(load_clip("ovseg-mini", weights=arm)) for arm in ("vanilla", "adapted")}
    weights = classifiers["adapted"].clip.weights_sha256
    proposer: Any = load_proposer("mobile-sam")
    now = {"weights": weights, "code": pipeline_code()}

    def stale(line: Line) -> bool:
        return any(line.get(key) != value for key, value in now.items())

    with tempfile.TemporaryDirectory() as cache:
        ours = Ours(classifiers, proposer, Path(cache))
        grids = [Straightforward(side, classifiers["adapted"], options.runs / "masks") for side in (16, 32)]
        _warm_up(ours, options.data)
        photos = subjects(options.data, options.photos)
        again = {line["run"] for line in book.lines.values()} if options.again else set()
        for grid, count in zip(grids, (options.photos, options.grid32), strict=True):
            for subject in photos[:count]:
                line = book.lines.get((subject.key, grid.name))
                old = book.lines.get((subject.key, "ours"))
                if line is None or options.fresh or old is None or stale(old) or old["run"] in again:
                    old = book.add(subject.key, "ours", ours.first_run(subject))
                    print(subject.key, "ours", _told(old), flush=True)
                if line is None or options.fresh:
                    line = book.add(subject.key, grid.name, grid.run(subject))
                    print(subject.key, grid.name, _told(line), flush=True)
                elif stale(line) and (rescored := grid.score_again(subject, line)):
                    book.add(subject.key, grid.name, rescored)
        for number, subject in enumerate(photos[: options.further]):
            old = book.lines.get((subject.key, "further"))
            if old is None or options.again or old.get("code") != pipeline_code():
                further = ours.further_runs(subject, new_words(number), many_names(1000))
                print(subject.key, book.add(subject.key, "further", further)["seconds"], flush=True)
    return book


def _told(line: dict[str, Any]) -> str:
    return f"{line['wall']['total']:.2f} s, CPU {line['cpu']['total']:.2f} s, {line['masks']} masks"


def _warm_up(ours: Ours, data: Path) -> None:
    """One photo that is not counted: libraries set themselves up in their first call."""
    photo = TRUTH_SETS["coco-train"](data).photos[0]
    ours.fresh().compare(photo.read(), [*new_words(99), "dog"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, print the table, write JSON and chart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=int, default=8, help="photos, at most 40")
    add("--grid32", type=int, default=8, help="so many of them with the 32 x 32 grid too")
    add(
        "--further",
        type=int,
        default=8,
        help="so many of them with other words, the other arm and 1,000 names",
    )
    add("--again", action="store_true", help="measure ours anew")
    add("--fresh", action="store_true", help="measure the straightforward composition anew too")
    add("--report", action="store_true", help="measure nothing, only report what the book holds")
    add("--quick", action="store_true", help="leave out memory and start of the page")
    add("--runs", type=Path, default=Path("runs/benchmarks"), help="where measurements are kept")
    add("--data", type=Path, default=Path("../shared"))
    add("--json", type=Path)
    add("--chart", type=Path, help="PNG")
    add("--readme", action="store_true", help="write the table into the README beside this file")
    options = parser.parse_args(arguments)
    book = Book(options.runs / "pipeline.jsonl") if options.report else measure(options)
    if not options.quick and not options.report:
        book.add("12 megapixels", "memory", {"bytes": memory_of_photo_bytes(4000, 3000)})
        book.add("page", "start", page_start_s())
    keys = {subject.key: subject for subject in subjects(options.data, options.photos)}
    figures = report(book, keys)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        chart(figures, options.chart)
    if options.readme:
        asked = f"--photos {options.photos} --grid32 {options.grid32} --further {options.further}"
        command = f"python -m tests.benchmarks.pipeline {asked}"
        write_section("pipeline", markdown(figures, command))


if __name__ == "__main__":
    main()
