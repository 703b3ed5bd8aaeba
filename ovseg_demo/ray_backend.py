"""Run work on a Ray cluster, for what is too much for one machine (pip install 'ovseg-demo[scale]')."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from ovseg_demo.errors import SettingsError

Row = dict[str, Any]
Work = Callable[[Row], Row]
"""Does one row; rows hold plain values only."""
MakeWork = Callable[[], Work]
"""Builds the work with its models; called once by every worker, so it must be picklable."""


class _Actor:
    """One worker: the work is built once and does many rows."""

    def __init__(self, make: MakeWork) -> None:
        self.work = make()

    def __call__(self, row: Row) -> Row:
        return self.work(row)


def on_ray(make: MakeWork, rows: Sequence[Row], workers: int) -> Iterator[Row]:
    """Do the rows with Ray Data; yields what came of each, in any order.

    A running cluster is used if there is one (RAY_ADDRESS), else one is started on this machine. All its
    nodes must see the same folders.

    Args:
        make: builds the work.
        rows: what is to be done.
        workers: actors, each with models of its own.

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
