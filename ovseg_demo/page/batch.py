"""Several photos with the same words: a zip of results, and a line for each photo that could not be read."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg_demo.corrections import Doubt, review_order
from ovseg_demo.errors import ImageError, OvsegError, ResourceError, quoted
from ovseg_demo.files import size_text
from ovseg_demo.output.export import Files, comparison_files, export, zipped
from ovseg_demo.page.handlers import Request, Result, answer_payload, arms_in, stream
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.progress import Progress, map_steps
from ovseg_demo.result import Comparison
from ovseg_demo.settings import Settings
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["BatchPhoto", "BatchStep", "run_batch"]

_FORMATS = ("overlay", "label-map", "classes", "json", "coco", "yolo", "geojson", "cutouts")


@dataclass(frozen=True)
class BatchPhoto:
    """A photo of a batch with its result, for the viewer."""

    name: str
    content: bytes
    """The file."""
    payload: dict[str, Any]
    """As the viewer shows a result."""
    doubts: tuple[Doubt, ...]
    """Regions that a person should look at, the most doubtful first."""


@dataclass(frozen=True)
class BatchStep:
    """How far a batch is."""

    done: int
    total: int
    failures: tuple[str, ...]
    """One sentence for each photo that failed so far."""
    doing: str = ""
    """What happens to the photo that comes next."""
    left_s: float | None = None
    """Estimate of the seconds left, once one photo is done."""
    archive: bytes | None = field(default=None, repr=False)
    """The zip, in the last step."""
    photo: BatchPhoto | None = field(default=None, repr=False)
    """The photo that is done with this step."""

    @property
    def message(self) -> str:
        """For the line under the button."""
        told = f"{self.done} of {self.total} photos done"
        if self.failures:
            told += f", {len(self.failures)} of them could not be used"
        if self.doing and self.done < self.total:
            told += f"; next: {self.doing}"
        if self.left_s is not None and self.done < self.total:
            told += f", about {max(1, round(self.left_s))} s left"
        return told


def run_batch(
    uploads: Sequence[str], request: Request, pool: ModelPool, check: Callable[[], None] = lambda: None
) -> Iterator[BatchStep]:
    """Segment all photos; yields progress, and the archive with the last step.

    Args:
        uploads: paths of photos, and of zip archives with photos in them.
        request: words and settings for all of them; its own photo is not used.
        pool: gives the models and the limits.
        check: called while files are made of a result; raises to end the batch.

    Raises:
        OvsegError: nothing was uploaded, too much was, or the words cannot be used. A photo that cannot be
            read raises nothing; it is listed in `failures.txt` of the archive.
    """
    limits = pool.settings
    vocabulary = Vocabulary.parse(
        request.words, max_names=limits.max_names, max_name_length=limits.max_name_length
    )
    photos = tuple(photos_in(uploads, limits))
    if not photos:
        raise ImageError("There are no photos yet; drop some, or a zip of them.")
    loading = load_models(pool, request.models, request.shared_arms)
    segmenter = yield from map_steps(loading, lambda step: BatchStep(0, len(photos), (), step[0]))
    files: Files = {}
    failures: list[str] = []
    made = 0
    started = time.perf_counter()
    for number, (name, content) in enumerate(photos):
        steps, began, done = stream(segmenter, content, vocabulary, request), time.perf_counter(), None

        def told(progress: Progress, number: int = number, name: str = name) -> BatchStep:
            spent = time.perf_counter() - started
            left = spent / number * (len(photos) - number) if number else None
            what = f"{name}, {progress.message.lower()}"
            return BatchStep(number, len(photos), tuple(failures), what, left)

        try:
            result: Result = yield from map_steps(steps, told)
        except OvsegError as error:
            failures.append(f"{name}: {error.public}")
        else:
            payload = answer_payload(result, request, name, time.perf_counter() - began, segmenter.notice)
            done = BatchPhoto(name, content, payload, review_order({name: arms_in(result)[::-1]}))
            # What `check` raises ends the batch: the photo is not at fault.
            for path, data in _files(result, name, check).items():
                made += len(data)
                files[f"{number + 1:03d}-{Path(name).stem}/{path}"] = data
        if made > limits.max_kept_bytes:
            raise ResourceError(
                f"The results have more than {size_text(limits.max_kept_bytes)} together; send fewer."
            )
        yield BatchStep(number + 1, len(photos), tuple(failures), photo=done)
    if failures:
        files["failures.txt"] = "".join(f"{line}\n" for line in failures).encode("utf-8", "replace")
    yield BatchStep(len(photos), len(photos), tuple(failures), archive=zipped(files, check))


def _files(result: Result, name: str, check: Callable[[], None]) -> Files:
    if isinstance(result, Comparison):
        return comparison_files(result, _FORMATS, name, check=check)
    return export(result, _FORMATS, name, check=check)


def photos_in(uploads: Sequence[str], limits: Settings) -> list[tuple[str, bytes]]:
    """Names and contents; reads no more than the limits allow, whatever an archive claims to hold."""
    photos: list[tuple[str, bytes]] = []
    room = limits.max_batch_bytes
    for upload in map(Path, uploads):
        entries = _unpacked(upload, limits) if zipfile.is_zipfile(upload) else [_plain(upload)]
        for name, content in entries:
            room -= len(content)
            photos.append((name, content))
            if len(photos) > limits.max_photos:
                raise ImageError(f"At most {limits.max_photos} photos are taken at once; send fewer.")
            if room < 0:
                raise ImageError(
                    f"The photos have more than {size_text(limits.max_batch_bytes)} together; send fewer."
                )
    return photos


def _plain(upload: Path) -> tuple[str, bytes]:
    return upload.name, upload.read_bytes()


def _unpacked(upload: Path, limits: Settings) -> Iterator[tuple[str, bytes]]:
    most = min(limits.max_file_bytes, limits.max_batch_bytes)
    try:
        with zipfile.ZipFile(upload) as archive:
            for entry in archive.infolist():
                # Folders, and what macOS and Windows add to archives.
                name = base_name(entry.filename)
                hidden = name.startswith(".") or "__MACOSX" in entry.filename
                if entry.is_dir() or hidden or entry.filename.endswith(("Thumbs.db", ".ini")):
                    continue
                with archive.open(entry) as file:
                    # One byte more than allowed tells that there is more, without unpacking it.
                    yield name, file.read(most + 1)
    # Each way of compressing has errors of its own, and names may be no text: not a closed list.
    except Exception as error:
        raise ImageError(f"The archive {quoted(upload.name)} cannot be read: {error}.") from error


def base_name(path: str) -> str:
    """The last part of a path of any system, in characters that are safe in a file name on all of them."""
    last = re.split(r"[/\\]", path)[-1]
    return re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", last)[-150:] or "photo"
