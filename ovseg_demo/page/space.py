"""Uploads the page as a Hugging Face Space: what it needs, and nothing else of the repository.

    hf auth login
    python -m ovseg_demo.page.space OWNER/NAME --hardware zero-a10g

The README's front matter tells the hub which Gradio, Python and hardware; large files go the hub's own way
for them. Run again, it uploads what has changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ovseg_demo.errors import OutputError, OvsegError, SettingsError, quoted

__all__ = ["NEWEST_TORCH", "ROOT", "main", "requirements", "stage", "upload"]

ROOT = Path(__file__).resolve().parents[2]

NEWEST_TORCH = "2.11.0"
"""The newest torch that ZeroGPU runs; without a bound a Space would be built with a newer one."""

_FILES = ("app.py", "README.md", "LICENSE", "requirements.txt")
_FOLDERS = ("ovseg_demo", "checkpoints", "examples")


def requirements(text: str) -> str:
    """`requirements.txt` for a Space: the same, but for the torch that ZeroGPU can run."""
    pinned, count = re.subn(r"(?m)^torch>=.*$", f"torch=={NEWEST_TORCH}", text)
    if count != 1:
        raise OutputError("requirements.txt has no line for torch to set the Space's version in.")
    return pinned


def stage(folder: Path) -> None:
    """Copy what belongs to the Space into an empty folder.

    Raises:
        OutputError: a part is missing, as in an installed package.
    """
    for name in (*_FILES, *_FOLDERS):
        if not (ROOT / name).exists():
            raise OutputError(f"{name} is missing; run this in a clone of the repository.")
    for name in _FILES:
        shutil.copyfile(ROOT / name, folder / name)
    for name in _FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.part", "*.pyc", ".*")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    text = (folder / "requirements.txt").read_text(encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(text), encoding="utf-8")


def upload(space: str, *, hardware: str | None = None, private: bool = False) -> str:
    """Make the Space if there is none, and upload; returns its address.

    Args:
        space: OWNER/NAME.
        hardware: the hub's name of a machine; by default what the hub gives (a free CPU, or what it had).
        private: for its owner only, if it is made now.

    Raises:
        SettingsError: the name is none.
        OutputError: the hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
        raise SettingsError(f"{quoted(space)} is no name of a Space; give OWNER/NAME.")
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage(folder)
        try:
            address = hub.create_repo(
                space,
                repo_type="space",
                space_sdk="gradio",
                space_hardware=hardware,  # type: ignore[arg-type]  # the hub's enumeration grows
                private=private,
                exist_ok=True,
            )
            hub.upload_folder(
                repo_id=space,
                repo_type="space",
                folder_path=folder,
                commit_message="ovseg-demo",
                # Files of an earlier upload that this one does not have.
                delete_patterns=["ovseg_demo/*", "examples/*", "checkpoints/*"],
            )
        except LocalTokenNotFoundError as error:
            raise OutputError("The hub asks who you are: run `hf auth login`, or set HF_TOKEN.") from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise OutputError(f"The upload to {space} failed: {reason}") from error
    return str(address)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ovseg_demo.page.space", description="Upload the page as a Hugging Face Space."
    )
    parser.add_argument("space", metavar="OWNER/NAME")
    parser.add_argument("--hardware", help="such as zero-a10g or cpu-basic; the hub's default if left out")
    parser.add_argument("--private", action="store_true", help="for its owner only, if it is made now")
    options = parser.parse_args(arguments)
    try:
        print(f"Uploaded to {upload(options.space, hardware=options.hardware, private=options.private)}")
    except OvsegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
