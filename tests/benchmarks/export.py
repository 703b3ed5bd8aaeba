"""Cost of the zips of a large result: seconds, memory, and the longest time in which they cannot be stopped.

    python -m tests.benchmarks.export --megapixels 48

The result is drawn: a photo with 40 uneven discs of ten classes, enlarged from the working size as real
results are.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ovseg_demo.imaging import load_image
from ovseg_demo.output.export import export, zip_comparison
from ovseg_demo.result import Arm, Segmentation, compare
from tests.benchmarks.readme import table
from tests.drawn import COFFEE, drawn_result

_REGIONS = 40
_NAMES = [f"thing {number}" for number in range(10)]


def drawn(megapixels: float, arm: Arm, first: int) -> Segmentation:
    """The coffee photo at this size with noise; `first` is the class of the first region."""
    rng = np.random.default_rng(0)
    working = cv2.resize(load_image(COFFEE), (1024, 768))
    rows, columns = np.mgrid[: working.shape[0], : working.shape[1]]
    regions = []
    for number in range(_REGIONS):
        # A disc with an uneven edge.
        uneven = cv2.GaussianBlur(rng.standard_normal(working.shape[:2]).astype(np.float32), (0, 0), 4)
        y, x = rng.uniform((0, 0), working.shape[:2])
        radius = rng.uniform(40, 200) + 60 * uneven
        mask = (rows - y) ** 2 + (columns - x) ** 2 < np.maximum(radius, 0) ** 2
        regions.append((1 + (first + number) % len(_NAMES), mask))
    small = drawn_result(working, _NAMES, regions, arm=arm)
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    size = (width, round(width * 3 / 4))
    image = cv2.resize(working, size, interpolation=cv2.INTER_CUBIC)
    image = cv2.add(image, rng.integers(0, 16, image.shape, dtype=np.uint8))
    labels, ids = (
        cv2.resize(one, size, interpolation=cv2.INTER_NEAREST) for one in (small.label_map, small.region_map)
    )
    return replace(small, image=image, label_map=labels, region_map=ids)


def measured_work(name: str, work: Callable[[Callable[[], None]], bytes]) -> dict[str, Any]:
    """Seconds, memory and the longest time between two checks of some work."""
    starts = time.perf_counter(), time.process_time()
    checks = [starts]
    content = work(lambda: checks.append((time.perf_counter(), time.process_time())))
    checks.append((time.perf_counter(), time.process_time()))
    wall, cpu = np.array(checks).T
    return {
        "zip of": name,
        "seconds": round(float(wall[-1] - wall[0]), 1),
        "CPU seconds": round(float(cpu[-1] - cpu[0]), 1),
        "longest unchecked, CPU seconds": round(float(np.diff(cpu).max()), 1),
        "checks": len(checks) - 2,
        "peak memory, GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "zip, MB": round(len(content) / 1e6, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, export and print; peak memory is that of the whole process so far."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megapixels", type=float, default=48)
    options = parser.parse_args(arguments)
    second = drawn(options.megapixels, "adapted", 0)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{held:.2f} GB before the first export.", flush=True)
    rows = [
        measured_work(
            "one arm", lambda check: export(second, ("zip",), "photo.jpg", check=check)["photo.zip"]
        )
    ]
    both = compare(drawn(options.megapixels, "vanilla", 1), second)
    rows.append(measured_work("both arms", lambda check: zip_comparison(both, "photo.jpg", check=check)))
    print(table(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
