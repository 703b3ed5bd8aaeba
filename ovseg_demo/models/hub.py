"""Weights on this machine: found, or fetched from the model hub, and never used before their hash is known.

What is downloaded lies in `<cache>/hub`, in the layout of huggingface_hub, which lets one process at a time
fetch a file and moves it into place only when it is complete. `<cache>/records` remembers which files were
hashed already, so that it happens once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ovseg_demo.errors import CheckpointError, DownloadError, OutputError
from ovseg_demo.files import file_sha256, size_text, write_text

__all__ = [
    "DownloadProgress",
    "HubFile",
    "NotOnHubError",
    "cached",
    "exists",
    "fetch",
    "fetch_current",
    "hash_of_file",
    "is_file",
    "is_here",
    "local_folder",
]

DownloadProgress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while a file comes in; raising in it stops the download."""

_CONNECT_TIMEOUT_S = 10.0
_STALE_AFTER_S = 3600.0
_GONE = (401, 404)  # what the hub says of repositories that are gone
_CHOOSE_ANOTHER = "choose another model"
"""What a visitor of a server can do about weights that are not there."""


@dataclass(frozen=True)
class HubFile:
    """One file of one repository on the model hub."""

    repo: str
    file: str
    size_bytes: int
    """For display; about right where the exact size is not known."""

    revision: str
    """The commit, so that the file cannot change."""

    sha256: str
    """Of the published file."""

    repo_type: Literal["model", "space"] = "model"


# --- finding ---------------------------------------------------------------------------------------------


def exists(path: Path) -> bool:
    """Whether there is a file or folder; False for a name that the system refuses or may not read."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file; see `exists`."""
    return exists(path) and path.is_file()


def local_folder(cache_dir: Path, model: str) -> Path:
    """Where a person puts the weights of `model` by hand."""
    return cache_dir / "weights" / model


def cached(source: HubFile, model: str, cache_dir: Path) -> Path | None:
    """The file, unchecked, if it is here: put there by hand, downloaded, or in the hub's shared cache."""
    by_hand = local_folder(cache_dir, model) / Path(source.file).name
    if is_file(by_hand):
        return by_hand
    return _downloaded(source, cache_dir) or _shared(source)


def is_here(source: HubFile, cache_dir: Path) -> bool:
    """Whether a file has been downloaded, by this program or into the hub's shared cache."""
    return (_downloaded(source, cache_dir) or _shared(source)) is not None


def _downloaded(source: HubFile, cache_dir: Path) -> Path | None:
    return _look_up(source, cache_dir / "hub")


def _shared(source: HubFile) -> Path | None:
    """From the cache that other programs use too, which Spaces fill before they start a program."""
    return _look_up(source, None)


def _look_up(source: HubFile, folder: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            source.repo, source.file, cache_dir=folder, revision=source.revision, repo_type=source.repo_type
        )
    except OSError:  # a cache that may not be read is an empty one
        return None
    return Path(found) if isinstance(found, str) else None


# --- fetching --------------------------------------------------------------------------------------------


def fetch(
    source: HubFile,
    model: str,
    cache_dir: Path,
    *,
    how_to_get: str,
    folder: str = "",
    progress: DownloadProgress | None = None,
) -> tuple[Path, str]:
    """The file and its sha256, downloaded if it is not on this machine.

    Args:
        source: which file.
        model: the model it belongs to, for messages.
        cache_dir: the app's cache folder.
        how_to_get: ends the message when the file cannot be had: a clause that says what to do.
        folder: the model whose folder holds files put there by hand; by default `model`'s own.
        progress: told about a download while it runs.

    Raises:
        DownloadError: the file is not here and cannot be fetched, or what came is not the right file.
        CheckpointError: the file a person put there is not the right one.
    """
    by_hand = local_folder(cache_dir, folder or model) / Path(source.file).name
    if is_file(by_hand):
        digest = hash_of_file(by_hand, cache_dir)
        if digest != source.sha256:
            raise CheckpointError(
                f"{by_hand} is not the published file of {model}: its sha256 begins with {digest[:12]} "
                f"instead of {source.sha256[:12]}; remove it or put the right file there.",
                public=f"{model} on this server is not the published one; {_CHOOSE_ANOTHER}.",
            )
        return by_hand, digest
    damaged = False
    for path in (_shared(source), _downloaded(source, cache_dir)):
        if path is not None:
            if hash_of_file(path, cache_dir) == source.sha256:
                return path, source.sha256
            damaged = True
    path = _download(source, model, cache_dir, how_to_get, progress, anew=damaged)
    digest = hash_of_file(path, cache_dir)
    if digest != source.sha256:
        _remove(path)
        what = (
            f"What came for {model} is not the published {source.file} and was removed, its sha256 "
            f"begins with {digest[:12]} instead of {source.sha256[:12]}"
        )
        raise DownloadError(f"{what}; {how_to_get}.", public=f"{what}; {_CHOOSE_ANOTHER}.")
    return path, digest


class NotOnHubError(DownloadError):
    """The hub was reached and has no such repository or file."""


def fetch_current(
    repo: str, file: str, model: str, cache_dir: Path, progress: DownloadProgress | None = None
) -> Path:
    """A file of a repository that is not in the table, downloaded if none was before.

    Nobody has published its hash; results record the hash of what came.

    Args:
        repo: OWNER/NAME on the hub.
        file: path in the repository.
        model: the model it belongs to, for messages.
        cache_dir: the app's cache folder.
        progress: told about a download while it runs.

    Raises:
        NotOnHubError: there is no such repository or file.
        DownloadError: it is not here and the hub cannot be reached.
    """
    source = HubFile(repo, file, 0, "main", "")
    if (path := _shared(source) or _downloaded(source, cache_dir)) is not None:
        return path
    how_to_get = f"connect and run again, or get the files of {repo} on another machine and give their folder"
    return _download(source, model, cache_dir, how_to_get, progress, anew=False)


def _download(
    source: HubFile,
    model: str,
    cache_dir: Path,
    how_to_get: str,
    progress: DownloadProgress | None,
    *,
    anew: bool,
) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # Read here and not by huggingface_hub when it was imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    folder = cache_dir / "hub"
    trouble = "the model hub cannot be reached"
    try:
        # Asked first because, offline, this fails at once where the download would try for half a minute.
        # Nothing in the table needs an account, so no token is sent.
        url = hf_hub_url(
            source.repo,
            source.file,
            repo_type=source.repo_type,
            revision=source.revision,
            endpoint=endpoint,
        )
        get_hf_file_metadata(url, token=False, timeout=_CONNECT_TIMEOUT_S, endpoint=endpoint)
        trouble = "the connection to the model hub was lost on the way"
        _clear_leftovers(folder)
        path = hf_hub_download(
            source.repo,
            source.file,
            repo_type=source.repo_type,
            revision=source.revision,
            endpoint=endpoint,
            cache_dir=folder,
            token=False,
            force_download=anew,
            tqdm_class=_reporting_to(progress, source.size_bytes),
        )
    except _StoppedError as stop:
        raise stop.reason from None
    # The hub's library raises its own errors, those of whichever transport it uses, and the system's.
    except Exception as error:
        size = f" ({size_text(source.size_bytes)})" if source.size_bytes else ""
        missing = f"{model}{size} is not on this"
        reason, public = _reason(error, folder) or (trouble, trouble)
        kind = NotOnHubError if _status(error) in _GONE else DownloadError
        raise kind(
            f"{missing} machine and {reason}; {how_to_get}.",
            public=f"{missing} server and {public}; {_CHOOSE_ANOTHER}.",
        ) from error
    return Path(path)


def _reason(error: Exception, folder: Path) -> tuple[str, str] | None:
    """Why a download failed, as half a sentence, and that without folders; None if the connection broke."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if status in _GONE:
        return (f"the model hub does not have it (status {status})",) * 2
    if status is not None:
        return (f"the model hub refused it (status {status})",) * 2
    if isinstance(error, OfflineModeIsEnabled):
        return "downloads are switched off (HF_HUB_OFFLINE)", "downloads are switched off"
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"there is no space left for it in {folder}", "there is no space left for it"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return f"{folder} cannot be written (set OVSEG_CACHE_DIR to a folder that can)", "cannot be stored"
    return None


def _status(error: Exception) -> int | None:
    """What the hub answered, None if it did not."""
    return getattr(getattr(error, "response", None), "status_code", None)


class _StoppedError(Exception):
    """Carries what a progress callback raised past the handlers of the hub's library."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _reporting_to(progress: DownloadProgress | None, size_bytes: int) -> Any:
    """A progress bar class that draws nothing and tells `progress`."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined, unused-ignore]

    class Reporting(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bytes = int(kwargs.get("initial") or 0)
            self._total = int(kwargs.get("total") or size_bytes)
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self._bytes += int(n or 0)
            if progress is not None:
                try:
                    progress(self._bytes, max(self._total, self._bytes))
                except BaseException as stop:
                    raise _StoppedError(stop) from None
            return None

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes that came over the wire, where these differ from the file's own: not reported."""

    return Reporting


def _clear_leftovers(folder: Path) -> None:
    """Remove what downloads left that were killed long ago; those under way were just written to."""
    for part in folder.glob("*/blobs/*.incomplete"):
        try:
            if time.time() - part.stat().st_mtime > _STALE_AFTER_S:
                part.unlink()
        except OSError:
            continue


def _remove(path: Path) -> None:
    """Remove a file of the cache and the blob that it is a link to."""
    blob = path.parent / path.readlink() if path.is_symlink() else path
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


# --- hashes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HashRecord:
    """A file as it was when it was hashed."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def hash_of_file(path: Path, cache_dir: Path) -> str:
    """The sha256 of a file in hexadecimal, computed once per path, size and time of change.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        real = path.resolve(strict=True)
        info = real.stat()
        memo = cache_dir / "records" / f"seen-{hashlib.sha256(str(real).encode()).hexdigest()[:24]}.json"
        known = _read_json(memo)
        if known and (known.get("path"), known.get("size"), known.get("mtime_ns")) == (
            str(real),
            info.st_size,
            info.st_mtime_ns,
        ):
            return str(known["sha256"])
        digest = file_sha256(real)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"The weights {path} cannot be read ({reason}); check the file.",
            public=f"The weights {path.name} cannot be read on this server; {_CHOOSE_ANOTHER}.",
        ) from None
    seen = _HashRecord(str(real), info.st_size, info.st_mtime_ns, digest)
    with suppress(OutputError):  # a cache that cannot be written is done without
        write_text(memo, json.dumps(asdict(seen), indent=1))
    return digest


def _read_json(path: Path) -> dict[str, Any] | None:
    """A record, or None where there is none or it is damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
