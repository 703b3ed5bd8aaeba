"""Files that are written whole or not at all, and the hash of a file."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ovseg_demo.errors import OutputError

__all__ = ["file_sha256", "whole_file", "write_text", "write_whole"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends.

    A block that raises, a kill and a full disk leave an earlier file as it was. The folder is made if it is
    not there. Several processes may write the same file: the last one's stays.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); free some space or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes; see `whole_file`.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; see `whole_file`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_whole(path, text.encode("utf-8"))


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
