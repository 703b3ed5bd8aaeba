"""What teaching on a few dozen corrected regions changes on other photos.

    python -m train.teach_figures --json teach.json
    python -m train.teach_figures --kinds streets people --regions 20

Protocol. A kind of photos is five names (see `train.memory`); photos of fold 0 of named_regions, which
nothing is trained on, are of the kind if they show at least two of them. Photos are drawn until `--regions`
of their regions bear one of the names; with these is taught, as `train.teach` does, refusal included. Printed
is top-1 on regions of other photos: of the kind's names, among these and the common names; and of other
names, among all of these and the 150 most frequent names of fold 0. Where teaching is refused, nothing
changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from train.core.files import write_text
from train.core.options import run_command
from train.evaluation.teaching import Draw, TeachFiguresSettings, measure_teaching


def teach_figures(settings: TeachFiguresSettings) -> list[Draw]:
    """Print every draw and their means, and write them as JSON."""
    draws = measure_teaching(settings)
    for draw in draws:
        told = f"refused: {draw.refused}" if draw.refused else _changes(draw)
        print(f"{draw.kind}, {draw.regions} regions, {draw.seconds:.0f} s: {told}")
    taught = [draw for draw in draws if not draw.refused]
    print(f"taught in {len(taught)} of {len(draws)} draws")
    for name, some in (("where taught", taught), ("all", draws)):
        if some:
            rest = np.mean([draw.rest_after - draw.rest_before for draw in some])
            others = np.mean([draw.others_after - draw.others_before for draw in some])
            print(f"{name}: the kind's names {rest:+.1f} points, other names {others:+.1f}")
    if settings.json:
        write_text(settings.json, json.dumps([asdict(draw) for draw in draws], indent=2) + "\n")
    return draws


def _changes(draw: Draw) -> str:
    return (
        f"the kind's names {draw.rest_before:.1f} -> {draw.rest_after:.1f}, "
        f"other names {draw.others_before:.1f} -> {draw.others_after:.1f}"
    )


if __name__ == "__main__":
    run_command(teach_figures, TeachFiguresSettings, prog="train.teach_figures")
