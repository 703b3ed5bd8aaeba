"""Progress of a training run: bar, log, curves, TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from train.core import distributed
from train.core.files import write_bytes
from train.evaluation.curves import LOG, draw_curves, read_log

SECONDS_BETWEEN_CURVES = 60.0
"""Drawing takes as long as several steps of a small model."""


class Progress:
    """Report each step as a bar, as JSONL, as curves, and to TensorBoard where it is installed.

    Only the main process reports. A resumed run removes the steps after its checkpoint from the log.

    Args:
        work: folder of the run.
        steps: of the whole run.
        done: finished steps.
    """

    def __init__(self, work: Path, steps: int, done: int) -> None:
        self.work, self.active, self.steps = work, distributed.is_main_process(), steps
        self._drawn = time.monotonic()
        self.bar = tqdm(total=steps, initial=done, desc=work.name, disable=None if self.active else True)
        self.log: Any = None
        self.board: Any = None
        if self.active:
            work.mkdir(parents=True, exist_ok=True)
            _forget_after(work / LOG, done)
            self.log = (work / LOG).open("a", encoding="utf-8")
            self.board = _tensorboard(work, done)

    def __enter__(self) -> Progress:
        return self

    def report(self, step: int, row: dict[str, float]) -> None:
        """Report a finished step."""
        if not self.active:
            return
        self.bar.update()
        self.log.write(json.dumps({"step": step, **{k: float(f"{v:.6g}") for k, v in row.items()}}) + "\n")
        self.log.flush()
        self.bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{row['top1']:.0f}%")
        for name, value in row.items() if self.board is not None else ():
            self.board.add_scalar(name, value, step)

    def draw(self, step: int) -> None:
        """Write the curves so far as `curves.png`: after the last step, and else once a minute at most."""
        now = time.monotonic()
        if self.active and (step == self.steps or now - self._drawn >= SECONDS_BETWEEN_CURVES):
            draw_curves({self.work.name: read_log(self.work / LOG)}, self.work / "curves.png")
            self._drawn = now

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.log is not None:
            self.log.close()
        if self.board is not None:
            self.board.close()


def _forget_after(path: Path, step: int) -> None:
    if path.is_file():
        rows = read_log(path)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def _tensorboard(work: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an optional extra: the JSONL file holds the same numbers
        return None
    return SummaryWriter(str(work / "tensorboard"), purge_step=done + 1)
