"""Description of the machine and its load, and clocks for wall and CPU time."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """The machine, its threads and its load, as they go beside every figure."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """What the processor calls itself, and the widest instructions that PyTorch uses on it."""
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = [line for line in listing.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@dataclass
class Stopwatch:
    """Seconds by stage: on the wall, and of all threads of this process."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what is done inside to a stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

    def record(self) -> dict[str, dict[str, float]]:
        """Both, rounded, with their sums as "total"."""
        return {
            kind: {**{k: round(v, 5) for k, v in stages.items()}, "total": round(sum(stages.values()), 5)}
            for kind, stages in (("wall", self.wall), ("cpu", self.cpu))
        }
