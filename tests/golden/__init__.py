"""Folders of tensors that the published modules computed (README.md)."""

from __future__ import annotations

import atexit
import os
import shutil
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def unpacked() -> Path:
    """The tensors of this folder as files, until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ovseg-golden-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(Path(__file__).with_name("tensors.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def case_folders(variable: str, own: str, beside: str) -> list[Path]:
    """Folders with a `meta.json` and expected tensors.

    Args:
        variable: environment variable; the folder it names replaces the others.
        own: folder of the archive here.
        beside: folder beside the checkout, used where it is there.

    Raises:
        FileNotFoundError: the variable names a folder without a case.
    """
    if variable in os.environ:
        folders = _cases(ROOT / os.environ[variable])
        if not folders:
            raise FileNotFoundError(f"{variable} names {os.environ[variable]}, where no case is.")
        return folders
    ours = _cases(unpacked() / own)
    return ours + [folder for folder in _cases(ROOT / beside) if folder.name not in {f.name for f in ours}]


def _cases(folder: Path) -> list[Path]:
    expected = ("expected.safetensors", "full_expected.safetensors")
    return sorted(path.parent for name in expected for path in folder.resolve().rglob(name))
