"""How the cost grows with the size of the photo, the number of regions and the number of names.

    python -m tests.benchmarks.scaling --json scaling.json --chart scaling.png

Each row is the median of --repeats runs. The exponent b of seconds = a * amount ** b is fitted by least
squares on the logarithms: 0 = the cost does not grow, 1 = it grows as the amount does. One chart per amount
is written beside the name that is given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg_demo.imaging import load_image, resize_to_side
from ovseg_demo.proposals import propose
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.benchmarks.machine import facts
from tests.benchmarks.pipeline import many_names
from tests.benchmarks.plots import Lines, draw_lines
from tests.benchmarks.processes import ROOT
from tests.benchmarks.readme import measured, table, write_section

MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 12.0)
REGIONS = (1, 5, 10, 25, 50, 100)
NAMES = (2, 10, 50, 200, 1000)
Row = dict[str, float]


def sized(photo: NDArray[np.uint8], megapixels: float) -> NDArray[np.uint8]:
    """The photo at another number of pixels."""
    scale = (1e6 * megapixels / (photo.shape[0] * photo.shape[1])) ** 0.5
    size = round(photo.shape[1] * scale), round(photo.shape[0] * scale)
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds on the wall and of all threads."""
    wall, cpu = [], []
    for _ in range(repeats):
        starts = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - starts[0])
        cpu.append(time.process_time() - starts[1])
    return float(np.median(wall)), float(np.median(cpu))


def exponent(rows: Sequence[Row], amount: str, key: str = "cpu_s") -> float:
    """b of seconds = a * amount ** b."""
    x, y = (np.log([row[name] for row in rows]) for name in (amount, key))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def by_size(segmenter: Segmenter, photo: NDArray[np.uint8], repeats: int) -> list[Row]:
    """Photo and ten words to the result, first time."""
    rows = []
    for megapixels in MEGAPIXELS:
        picture = sized(photo, megapixels)

        def first_time(picture: NDArray[np.uint8] = picture) -> None:
            segmenter.photos.clear()
            segmenter(picture, many_names(10))

        wall, cpu = timed(first_time, repeats)
        rows.append({"megapixels": megapixels, "wall_s": wall, "cpu_s": cpu})
        print(rows[-1], flush=True)
    return rows


def by_regions(segmenter: Segmenter, photo: NDArray[np.uint8], repeats: int) -> list[Row]:
    """Crops and CLIP for so many regions of one photo (its own, repeated where it has too few).

    The whole photo is always looked at too, and counted as one of them.
    """
    working = resize_to_side(photo, segmenter.settings.max_side_px)
    found = propose(segmenter.proposer, working)
    classifier, rows = segmenter.classifier("adapted"), []
    for count in REGIONS:
        spread = np.arange(count - 1)
        some = np.sort(spread * len(found) // count if count <= len(found) else spread % len(found))
        chosen = replace(found, masks=found.masks[some], quality=found.quality[some], boxes=found.boxes[some])
        wall, cpu = timed(lambda chosen=chosen: classifier.embed(working, chosen), repeats)  # type: ignore[misc]
        rows.append({"regions": count, "wall_s": wall, "cpu_s": cpu})
        print(rows[-1], flush=True)
    return rows


def by_names(segmenter: Segmenter, photo: NDArray[np.uint8], repeats: int) -> list[Row]:
    """New words on a photo that is known, all names seen before."""
    segmenter(photo, many_names(max(NAMES)))
    rows = []
    for count in NAMES:
        wall, cpu = timed(lambda count=count: segmenter(photo, many_names(count)), 3 * repeats)  # type: ignore[misc]
        rows.append({"names": count, "wall_s": wall, "cpu_s": cpu})
        print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, fit, print, write JSON and charts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repeats", type=int, default=3)
    add("--only", nargs="*", choices=("megapixels", "regions", "names"), help="some of the three")
    add("--json", type=Path)
    add("--chart", type=Path, help="PNG; its name gets the amount added")
    add("--readme", action="store_true", help="write the table into the README beside this file")
    options = parser.parse_args(arguments)
    photo = load_image(ROOT / "examples" / "street.jpg")
    measures = {"megapixels": by_size, "regions": by_regions, "names": by_names}
    about, figures = facts(), {}
    with tempfile.TemporaryDirectory() as cache:
        segmenter = Segmenter.from_pretrained(
            "ovseg-mini", device="cpu", settings=Settings(cache_dir=Path(cache))
        )
        segmenter(photo, many_names(10))  # libraries set themselves up in their first call
        for amount, measure in measures.items():
            if not options.only or amount in options.only:
                rows = measure(segmenter, photo, options.repeats)
                figures[amount] = {"rows": rows, "exponent": exponent(rows, amount)}
    for amount, figure in figures.items():
        print(f"\n{amount.rjust(12)}{'wall s'.rjust(12)}{'CPU s'.rjust(12)}")
        for row in figure["rows"]:
            print(f"{row[amount]:12g}{row['wall_s']:12.3f}{row['cpu_s']:12.3f}")
        print(f"fitted exponent of the CPU seconds: {figure['exponent']}")
        if options.chart:
            lines = {f"exponent {figure['exponent']}": [(r[amount], r["cpu_s"]) for r in figure["rows"]]}
            below = f"{about['processor']}, {about['threads']} threads, {about['date']}"
            title = f"CPU seconds by {amount}"
            path = options.chart.with_stem(f"{options.chart.stem}-{amount}")
            draw_lines(Lines(title, below, amount, "seconds", lines, log_x=True, log_y=True), path)
    if options.readme:
        rows = [
            [amount, f"{row[amount]:g}", f"{row['wall_s']:.3f}", f"{row['cpu_s']:.3f}", figure["exponent"]]
            for amount, figure in figures.items()
            for row in figure["rows"]
        ]
        told = measured("python -m tests.benchmarks.scaling", about)
        grid = table(["amount of", "", "seconds", "CPU seconds", "fitted exponent"], rows)
        write_section("scaling", f"{told}\n\n{grid}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, **figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
