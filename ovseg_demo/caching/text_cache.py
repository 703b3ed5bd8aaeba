"""Cache of text features, in memory and on disk, by (model, templates, name).

    texts = TextCache(settings.cache_dir)
    known = texts.read(model, "vild", ["dog", "grass"])
    texts.write(model, "vild", {"cat": feature})

Names are stored as hashes: what visitors typed cannot be read from the file. If the folder cannot be written
or the file is damaged, features are computed again and the request goes on.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["TextCache"]

_log = logging.getLogger(__name__)

Feature = NDArray[np.float32]
T = TypeVar("T")

_FILE = "text-features.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, feature BLOB NOT NULL) WITHOUT ROWID"
_ASKED_AT_ONCE = 500  # variables in one statement
_WAIT_S = 2.0  # for the lock of another process that writes


class TextCache:
    """Text features in memory, shared by the arms, and in a file that several processes may share.

    Args:
        folder: where the file is; made when something is written. None keeps them in memory only.
        max_features: when more would be kept, memory or file is emptied first.
    """

    def __init__(self, folder: Path | None, *, max_features: int = 50_000) -> None:
        self._path = None if folder is None else folder / _FILE
        self._max_features = max_features
        self._memory: dict[tuple[str, str, str], Feature] = {}

    def read(self, model: str, templates: str, names: Sequence[str]) -> dict[str, Feature]:
        """The features of the names that are cached, (D,) float32 each.

        Args:
            model: hash of everything else that the features depend on.
            templates: name of the sentences.
            names: as they are embedded.
        """
        found = {
            name: feature
            for name in names
            if (feature := self._memory.get((model, templates, name))) is not None
        }
        missing = [name for name in names if name not in found]
        if missing and self._is_there():
            from_file = self._read_file(model, templates, missing)
            self._remember(model, templates, from_file)
            found |= from_file
        return found

    def write(self, model: str, templates: str, features: Mapping[str, Feature]) -> None:
        """Keep the (D,) features of names."""
        self._remember(model, templates, features)
        if self._path is not None and features:
            self._write_file(model, templates, features)

    def _is_there(self) -> bool:
        try:
            return self._path is not None and self._path.is_file()
        except OSError:  # no permission to enter the folder
            return False

    def _remember(self, model: str, templates: str, features: Mapping[str, Feature]) -> None:
        if len(self._memory) + len(features) > self._max_features:
            self._memory.clear()
        self._memory |= {(model, templates, name): feature for name, feature in features.items()}

    def _read_file(self, model: str, templates: str, names: Sequence[str]) -> dict[str, Feature]:
        of_key = {_key(model, templates, name): name for name in names}
        keys = list(of_key)

        def find(file: sqlite3.Connection) -> dict[str, Feature]:
            found: dict[str, Feature] = {}
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                some = keys[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT key, feature FROM features WHERE key IN ({marks})", some)
                found |= {of_key[key]: np.frombuffer(value, dtype="<f4") for key, value in rows}
            return found

        return self._with_file(find, {})

    def _write_file(self, model: str, templates: str, features: Mapping[str, Feature]) -> None:
        rows = [
            (_key(model, templates, name), feature.astype("<f4").tobytes())
            for name, feature in features.items()
        ]

        def add(file: sqlite3.Connection) -> None:
            with file:  # all or nothing
                (count,) = file.execute("SELECT COUNT(*) FROM features").fetchone()
                if count + len(rows) > self._max_features:
                    file.execute("DELETE FROM features")
                file.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows[: self._max_features])

        self._with_file(add, None)

    def _with_file(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Call `work` with the open file; log errors, remove a damaged file."""
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as file:
                file.execute(_TABLE)
                return work(file)
        except sqlite3.OperationalError as error:  # locked, read-only, full
            _log.warning("Text features are not kept in %s: %s", self._path, error)
        except sqlite3.DatabaseError as error:
            _log.warning("%s is damaged (%s) and is started again", self._path, error)
            self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("Text features are not kept in %s: %s", self._path, error.strerror)
        return otherwise


def _key(model: str, templates: str, name: str) -> bytes:
    return sha256("\0".join((model, templates, name)).encode("utf-8", "surrogatepass")).digest()
