"""The working folder of the mining: one file for each finished chunk.

A step splits the photos into chunks and writes one file per chunk, whole or not at all. A resumed run makes
the chunks that have no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.core.checkpointing import ResumeError
from train.core.files import write_bytes


def record_settings(folder: Path, settings: Mapping[str, Any], option: str = "--work") -> None:
    """Create the folder with a record of the settings, or compare them with its record.

    Args:
        folder: made if it does not exist.
        settings: what decides its content.
        option: the command-line option that names the folder, for the message.

    Raises:
        ResumeError: its work was done with other settings; the first that differs is named.
        OutputError: the folder cannot be written.
    """
    record = folder / "settings.json"
    now = {name: str(value) for name, value in settings.items()}
    if not record.is_file():
        write_bytes(record, json.dumps(now, indent=1).encode())
        return
    before = json.loads(record.read_text("utf-8"))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise ResumeError(
                f"{folder} was made with {name}={before.get(name)} and not {now.get(name)}: "
                f"give the same setting to go on, or another {option} folder to start anew."
            )


def recorded_setting(folder: Path, name: str) -> str | None:
    """A setting from the folder's record; None if the folder is new."""
    record = folder / "settings.json"
    if not record.is_file():
        return None
    found: str | None = json.loads(record.read_text("utf-8")).get(name)
    return found


def chunk_path(folder: Path, chunk: int, suffix: str) -> Path:
    """File of a chunk, counted from 0."""
    return folder / f"chunk_{chunk:06d}{suffix}"
