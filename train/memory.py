"""What a memory of three corrected photos changes: on photos of their kind, and on photos of others.

    python -m train.memory --features-cache runs/features --json memory.json

Protocol. A kind of photos is five names, typed together; photos of fold 0 of named_regions, which nothing is
trained on, are of the kind if they show at least two of them. Three photos are drawn and all their regions
that one of the names fits are remembered. Printed is the mIoU of the five names on the other photos of the
kind, without and with the memory, over pixels whose names are known; and how much of photos that show none
of the five names changes, when these are asked for the five names and for up to ten of their own.
The numbers of the formula were chosen on half of the kinds (`CHOSEN_ON`); the others are told apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.core.files import write_text
from train.core.options import run_command
from train.evaluation.memory import (
    CHOSEN_ON,
    MemoryFiguresSettings,
    Task,
    class_gains,
    mean_gain,
    measure_memory,
    scoring_cost,
)


def memory(settings: MemoryFiguresSettings) -> None:
    """Print the figures of each arm, and write them as JSON."""
    record: dict[str, Any] = {"model": settings.model, "photos": settings.photos, "draws": settings.draws}
    for arm, tasks in measure_memory(settings).items():
        groups = {
            "kinds that took part in choosing": [t for t in tasks if t.kind in CHOSEN_ON],
            "other kinds": [t for t in tasks if t.kind not in CHOSEN_ON],
        }
        record[arm] = {name: _told(arm, name, some) for name, some in groups.items() if some}
    record["milliseconds_of_1000_examples"] = cost = round(scoring_cost(1000), 2)
    print(f"1,000 examples cost {cost} ms for 100 regions")
    if settings.json:
        write_text(settings.json, json.dumps(record, indent=2) + "\n")


def _told(arm: str, name: str, tasks: Sequence[Task]) -> dict[str, Any]:
    gain, classes = mean_gain(tasks), class_gains(tasks)
    before = float(np.mean([np.nanmean(task.iou_before) for task in tasks]))
    kinds = {
        kind: float(np.mean([np.nanmean(t.iou_after - t.iou_before) for t in tasks if t.kind == kind]))
        for kind in dict.fromkeys(task.kind for task in tasks)
    }
    worst = min(classes, key=lambda key: classes[key])
    changed = np.array([share for task in tasks for share in task.changed])
    print(f"{arm}, {name}: mIoU {before:.1f}, with a memory {gain} points; {len(tasks)} draws")
    print("  " + ", ".join(f"{kind} {value:+.1f}" for kind, value in kinds.items()))
    print(f"  worst class: {worst[1]} of {worst[0]} {classes[worst]:+.1f}")
    print(
        f"  photos of other kinds: {changed.mean():.2f} % of pixels change on average, "
        f"more than 1 % on {100 * (changed > 1).mean():.0f} % of them"
    )
    return {
        "miou_before": round(before, 2),
        "gain": {"value": round(gain.value, 2), "interval": [round(v, 2) for v in gain.interval]},
        "kinds": {kind: round(value, 2) for kind, value in kinds.items()},
        "classes": {f"{kind}: {word}": round(value, 2) for (kind, word), value in classes.items()},
        "unrelated_changed_mean": round(float(changed.mean()), 3),
        "unrelated_over_1_percent": round(float((changed > 1).mean()), 3),
    }


if __name__ == "__main__":
    run_command(memory, MemoryFiguresSettings, prog="train.memory")
