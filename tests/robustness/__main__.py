"""`python -m tests.robustness`: figures of how the demo takes bad input, many users and broken machines.

Exits with 1 if a figure misses its target. `--short` does less of everything and takes under three minutes;
`--part NAME`, which can be repeated, does one part in full.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.robustness.plan import FULL, SHORT, Plan
from tests.robustness.table import Figure, printed

PARTS: dict[str, tuple[str, str]] = {
    "files": ("1 Files", "files"),
    "words": ("2 Text", "words"),
    "weights": ("3 Weights", "weights"),
    "load": ("4 Load", "load"),
    "exposure": ("1, 5, 6, 9 The running server: files, limits, exposure, log", "exposure"),
    "failure": ("7 Failure", "failure"),
    "determinism": ("8 Determinism", "determinism"),
}
"""By name on the command line: title, and the module whose `figures(plan)` measures."""


def figures_of(part: str, plan: Plan) -> list[Figure]:
    """The figures of one part."""
    module = importlib.import_module(f"tests.robustness.{PARTS[part][1]}")
    found: list[Figure] = module.figures(plan)
    return found


def main() -> int:
    """Run the parts that were asked for and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, under three minutes")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    plan = SHORT if options.short else FULL
    everything: dict[str, list[Figure]] = {}
    for part in options.part or PARTS:
        started = time.monotonic()
        everything[part] = figures_of(part, plan)
        title = f"{PARTS[part][0]} ({time.monotonic() - started:.0f} s)"
        print(printed(title, everything[part]), flush=True)
    if options.json:
        told = {part: [asdict(figure) for figure in found] for part, found in everything.items()}
        options.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    missed = sum(not figure.holds for found in everything.values() for figure in found)
    print(f"\n{'All figures hold' if not missed else f'{missed} figures miss their target'}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
