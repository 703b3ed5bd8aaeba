"""Loss and accuracy of training runs as a picture.

python -m train.curves --runs runs/finetune runs/prompt_tune --out curves.png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.core.options import run_command
from train.evaluation.curves import LOG, Log, draw_curves, read_log


@dataclass(frozen=True)
class CurveSettings:
    """Draw loss and accuracy of training runs over each other."""

    runs: tuple[Path, ...]
    """Folders of runs, each with a log.jsonl."""
    out: Path = Path("curves.png")
    """Picture to write."""


def main(settings: CurveSettings) -> None:
    """Read the logs and draw them."""
    draw_curves(_by_name(settings.runs), settings.out)
    print(f"Curves of {len(settings.runs)} runs in {settings.out}")


def _by_name(runs: Sequence[Path]) -> dict[str, Log]:
    return {run.name: read_log(run / LOG) for run in runs}


if __name__ == "__main__":
    run_command(main, CurveSettings, prog="train.curves")
