"""The folder of uploads and exported files, and how they are deleted.

Gradio keeps such files in one folder for all its programs of a machine and deletes those it remembers. Here
each server has a folder of its own that only its user can read, and everything in it is deleted in time,
however it came there: half an upload of a cut connection, too. What a killed server left is removed when the
next one starts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ovseg_demo.settings import Settings

__all__ = ["Sweeper", "own_folder"]

_PREFIX = "ovseg-demo-"
_LOCK = "in-use.lock"
_GRADIOS_VARIABLE = "GRADIO_TEMP_DIR"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder that Gradio is told to use, inside GRADIO_TEMP_DIR or the system's temporary folder.

    To be entered before the page is built. Removed at the end, or by the next server if this one is killed.
    """
    before = os.environ.get(_GRADIOS_VARIABLE)
    parent = Path(before or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent)
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    files = home / "files"
    files.mkdir()
    try:
        # The operating system lets go of the lock when the process ends, however it ends.
        with FileLock(home / _LOCK):
            os.environ[_GRADIOS_VARIABLE] = str(files.resolve())
            yield files.resolve()
    finally:
        if before is None:
            os.environ.pop(_GRADIOS_VARIABLE, None)
        else:
            os.environ[_GRADIOS_VARIABLE] = before
        shutil.rmtree(home, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for home in parent.glob(f"{_PREFIX}*"):
        lock = home / _LOCK
        # The folder of another user cannot be locked, and one that is just being made has no lock yet.
        with suppress(Timeout, OSError):
            if home.is_symlink() or not lock.is_file():
                continue
            with FileLock(lock, timeout=0):
                pass
            shutil.rmtree(home, ignore_errors=True)


class Sweeper:
    """Deletes every file of a folder once it has been there for its lifetime.

    Ages are measured with a monotonic clock, not by the files' dates, so that setting the system's clock has
    no effect.

    Args:
        folder: where to sweep.
        settings: the lifetime.
        also: called in every round, for what is kept in memory.
    """

    def __init__(self, folder: Path, settings: Settings, also: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.also = also
        self.lifetime_s = settings.state_lifetime_s
        self.stored_bytes = 0
        """Of all files at the last sweep."""
        self._seen: dict[tuple[str, int, int], float] = {}
        self._spared: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start sweeping in the background; files that exist already, such as the examples, stay."""
        self._spared = frozenset(str(path) for path in self._files())
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping."""
        self._stop.set()
        self._thread.join()

    def sweep(self) -> None:
        """One round."""
        self.also()
        now, seen, total = time.monotonic(), {}, 0
        for path in self._files():
            try:
                info = path.lstat()
                key = (str(path), info.st_size, info.st_mtime_ns)
                first = self._seen.get(key, now)
                if now - first > self.lifetime_s and str(path) not in self._spared:
                    path.unlink()
                    with suppress(OSError):
                        path.parent.rmdir()  # fails unless that was its last file
                    continue
            except OSError:  # gone meanwhile
                continue
            seen[key] = first
            total += info.st_size
        self._seen, self.stored_bytes = seen, total

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.folder):
            yield from (Path(folder) / name for name in names)

    def _run(self) -> None:
        while not self._stop.wait(min(60.0, self.lifetime_s / 4)):
            self.sweep()
