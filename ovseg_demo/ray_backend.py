"""Run work on a Ray cluster (pip install 'ovseg-demo[scale]')."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from ovseg_demo.errors import SettingsError

Row = dict[str, Any]
Work = Callable[[Row], Row]
"""Processes one row; rows hold plain values only."""
MakeWork = Callable[[], Work]
"""Builds the work with its models; each worker calls it once, so it must be picklable."""


class _Actor:
    """One worker: builds the work once and processes many rows."""

    def __init__(self, make: MakeWork) -> None:
        self.work = make()

    def __call__(self, row: Row) -> Row:
        return self.work(row)


def on_ray(make: MakeWork, rows: Sequence[Row], workers: int) -> Iterator[Row]:
    """Process rows with Ray Data; yields the results in any order.

    RAY_ADDRESS names a running cluster; without it one is started on this machine. All nodes must see the
    same folders.

    Args:
        make: builds the work.
        rows: the input.
        workers: number of actors; each has its own models.

    Raises:
        SettingsError: fewer than one worker, or Ray is not installed.
    """
    if workers < 1:
        raise SettingsError(f"--workers must be at least 1, not {workers}.")
    try:
        import ray.data
    except ImportError:
        raise SettingsError(
            "--engine ray needs Ray: pip install 'ovseg-demo[scale]', or choose --engine local."
        ) from None
    if not rows:
        return
    actors = min(workers, len(rows))
    dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    yield from dataset.map(cast(Any, _Actor), fn_constructor_args=(make,), concurrency=actors).iter_rows()
