"""What happens when a visitor asks for something: a request in, a stream of what to show out.

Nothing here is shared between visitors but the models; what belongs to one travels through arguments and
Gradio's session state.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ovseg_demo.errors import ImageError, OvsegError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import MODELS
from ovseg_demo.page.payload import photo_payload, result_payload
from ovseg_demo.page.pool import ModelPool
from ovseg_demo.result import Arm, Comparison, Segmentation
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.clip.text import Templates
    from ovseg_demo.segmenter import MergeRule, Progress

__all__ = ["Request", "Shown", "note", "run"]

_log = logging.getLogger(__name__)

Result = Segmentation | Comparison
Payload = dict[str, Any]

_SECONDS_BETWEEN_UPDATES = 0.25


@dataclass(frozen=True)
class Request:
    """What a visitor asked for."""

    photo: str | None
    """Path of the uploaded file."""
    words: str
    compare: bool
    model: str
    proposer: str
    templates: str
    merge: str


@dataclass(frozen=True)
class Shown:
    """One step of the answer: what the viewer gets, and the result once there is one."""

    payload: Payload
    result: Result | None = None


def note(message: str, level: str) -> Payload:
    """A sentence under the picture; what is shown stays. `level` is "error" or "stopped"."""
    return {"kind": "note", "level": level, "message": message}


def run(request: Request, pool: ModelPool) -> Iterator[Shown]:
    """Answers a request step by step; never raises. Closing the iterator stops the work."""
    try:
        yield from _steps(request, pool)
    except OvsegError as error:
        yield Shown(note(str(error), "error"))
    except Exception:
        number = secrets.token_hex(4)
        _log.exception("Request %s failed", number)
        yield Shown(note(f"Something went wrong here (request {number}); please try again.", "error"))


def _steps(request: Request, pool: ModelPool) -> Iterator[Shown]:
    started = time.perf_counter()
    limits = pool.settings
    if not request.photo:
        raise ImageError("There is no photo yet; drop one, or take one of the examples.")
    # Before anything that takes time: words that cannot be used are told at once.
    vocabulary = Vocabulary.parse(
        request.words, max_names=limits.max_names, max_name_length=limits.max_name_length
    )
    image = load_image(
        Path(request.photo), max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes
    )
    loading = "" if pool.has(request.model, request.proposer) else " (the first time: loading the models)"
    yield Shown(_working("Starting" + loading, 0.0) | {"photo": photo_payload(image)})
    segmenter = pool.get(request.model, request.proposer)
    arms = _arms(request.model)[0 if request.compare else -1 :]
    # Weights that are missing are told before the photo is looked at.
    for arm in arms:
        segmenter.classifier(arm)
    merge, templates = cast("MergeRule", request.merge), cast("Templates", request.templates)
    steps: Generator[Progress, None, Result]
    if len(arms) == 2:
        steps = segmenter.stream_compare(image, vocabulary, merge=merge, templates=templates)
    else:
        steps = segmenter.stream(image, vocabulary, arms[-1], merge=merge, templates=templates)
    with closing(steps):
        result = yield from _with_progress(steps, limits.timeout_s)
    payload = result_payload(result) | {
        "kind": "result",
        "message": _summary(result, time.perf_counter() - started),
    }
    yield Shown(payload, result)


def _arms(model: str) -> tuple[Arm, ...]:
    """The arms that a page can compare, vanilla first; some models have only one."""
    entry, both = MODELS.get(model), cast("tuple[Arm, ...]", ("vanilla", "adapted"))
    return tuple(arm for arm in both if entry is None or arm in entry.arms)


def _with_progress(
    steps: Generator[Progress, None, Result], timeout_s: float
) -> Generator[Shown, None, Result]:
    started = shown = time.perf_counter()
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return cast(Result, end.value)
        now = time.perf_counter()
        if now - started > timeout_s:
            raise OvsegError(
                f"This took more than {timeout_s:.0f} seconds and was stopped; try a smaller photo or model."
            )
        if now - shown >= _SECONDS_BETWEEN_UPDATES:
            shown = now
            yield Shown(
                _working(progress.message + _left(progress.fraction, now - started), progress.fraction)
            )


def _working(message: str, fraction: float) -> Payload:
    return {"kind": "working", "message": message + " …", "fraction": fraction}


def _left(fraction: float, elapsed_s: float) -> str:
    """An estimate, once there is something to base it on."""
    if fraction < 0.1 or elapsed_s < 1.5:
        return ""
    seconds = elapsed_s / fraction * (1 - fraction)
    return f", about {max(1, round(seconds))} s left"


def _summary(result: Result, seconds: float) -> str:
    """What was found and how long it took, in one or two sentences for the line under the picture."""
    first = result.adapted if isinstance(result, Comparison) else result
    if not first.found:
        told = "None of these words fit; try others."
    elif isinstance(result, Comparison):
        told = result.verdict
    else:
        told = f"Found {', '.join(c.name for c in first.found[:5])}."
    if first.timings.get("propose", 0.0) == 0.0 and first.timings.get("embed", 0.0) == 0.0:
        return f"{told} Only the words were scored again: {seconds:.1f} s."
    stages = ((name, first.timings.get(key, 0.0)) for name, key in _STAGES)
    parts = ", ".join(f"{name} {spent:.1f} s" for name, spent in stages if spent >= 0.05)
    return f"{told} Done in {seconds:.1f} s" + (f" ({parts})." if parts else ".")


_STAGES = (("regions", "propose"), ("CLIP", "embed"), ("words", "text"))
