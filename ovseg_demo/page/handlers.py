"""What happens when a visitor asks for something: a request in, a stream of what to show out.

Nothing here is shared between visitors but the models; what belongs to one travels through arguments and
Gradio's session state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import compared_arms, default_arm
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.proposal_preview import ProposalPreview
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.server.request_tracker import RequestCancelledError, RequestContext
from ovseg_demo.page.viewer.payload import photo_payload, result_payload
from ovseg_demo.progress import map_steps
from ovseg_demo.result import Arm, Comparison, Segmentation
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.clip.text import Templates
    from ovseg_demo.progress import Progress
    from ovseg_demo.segmenter import ImageSource, MergeRule, Segmenter

__all__ = [
    "PageUpdate",
    "Request",
    "Result",
    "note",
    "run",
    "stream",
    "summary",
    "timing_payload",
    "without_masks",
]

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
    strictness: float = 0.0
    """Log-odds that a word needs on top of what was calibrated."""
    density: str = "normal"
    max_side_px: int = 1024
    ensemble: float = 0.0
    """Share of CLIP beside a proposer that names its own masks."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that are asked for; a model may have only one."""
        return compared_arms(self.model) if self.compare else (default_arm(self.model),)

    @property
    def models(self) -> Models:
        """What the photo is looked at with."""
        return Models(self.model, self.proposer, self.density, int(self.max_side_px))


@dataclass(frozen=True)
class PageUpdate:
    """One step of the answer: what the viewer gets, and the result once there is one."""

    payload: Payload
    result: Result | None = None


def note(message: str, level: str) -> Payload:
    """A sentence under the picture; what is shown stays. `level` is "error" or "stopped"."""
    return {"kind": "note", "level": level, "message": message}


def run(request: Request, pool: ModelPool, wanted: Callable[[], bool] = lambda: True) -> Iterator[PageUpdate]:
    """Answers a request step by step; never raises. Closing the iterator stops the work.

    Args:
        request: what was asked for.
        pool: the models.
        wanted: whether somebody still waits for the answer; if not, the steps end.
    """
    with pool.tracker.request("page", wanted) as context:
        try:
            yield from _steps(request, pool, context)
        except RequestCancelledError:
            context.outcome = "stopped"
        except Exception as error:
            yield PageUpdate(note(context.error_message(error), "error"))


def _steps(request: Request, pool: ModelPool, context: RequestContext) -> Iterator[PageUpdate]:
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
    yield PageUpdate(_working("Starting", 0.0) | {"photo": photo_payload(image)})

    def told(step: tuple[str, float]) -> PageUpdate:
        context.check()
        return PageUpdate(_working(*step))

    segmenter = yield from map_steps(load_models(pool, request.models, request.arms), told)
    steps = stream(segmenter, image, vocabulary, request)
    with closing(steps):
        result = yield from _with_progress(steps, context)
    payload = result_payload(result) | {
        "kind": "result",
        "message": " ".join(part for part in (summary(result), segmenter.notice) if part),
        **timing_payload(result, time.perf_counter() - started),
    }
    yield PageUpdate(payload, result)


def _with_progress(
    steps: Generator[Progress, None, Result], context: RequestContext
) -> Generator[PageUpdate, None, Result]:
    started = shown = time.perf_counter()
    preview = ProposalPreview()
    while True:
        context.check()
        try:
            progress = next(steps)
        except StopIteration as end:
            return cast(Result, end.value)
        preview.take(progress)
        now = time.perf_counter()
        # What follows a step with all regions takes long: it is not left out.
        if now - shown >= _SECONDS_BETWEEN_UPDATES or (progress.stage == "embed" and preview.pending):
            shown = now
            drawn = preview.payload()
            told = progress.message + (f": {len(preview)} so far" if preview.growing else "")
            working = _working(told + _time_left(progress.fraction, now - started), progress.fraction)
            yield PageUpdate(working | ({"preview": drawn} if drawn else {}))


def _working(message: str, fraction: float) -> Payload:
    return {"kind": "working", "message": message + " …", "fraction": fraction}


def _time_left(fraction: float, elapsed_s: float) -> str:
    """An estimate, once there is something to base it on."""
    if fraction < 0.1 or elapsed_s < 1.5:
        return ""
    seconds = elapsed_s / fraction * (1 - fraction)
    return f", about {max(1, round(seconds))} s left"


def stream(
    segmenter: Segmenter, image: ImageSource, vocabulary: Vocabulary, request: Request
) -> Generator[Progress, None, Result]:
    """The steps of one photo, with the arms and options that were asked for."""
    options: dict[str, Any] = {
        "merge": cast("MergeRule", request.merge),
        "templates": cast("Templates", request.templates),
        "strictness": float(request.strictness),
        "ensemble": float(request.ensemble),
    }
    if len(request.arms) == 2:
        return segmenter.stream_compare(image, vocabulary, **options)
    return segmenter.stream(image, vocabulary, request.arms[-1], **options)


def without_masks(result: Result) -> Result:
    """What is kept for a visitor: without the whole masks, which are large and for the viewer only."""
    if isinstance(result, Comparison):
        first, second = (replace(arm, masks=None) for arm in result.arms)
        return replace(result, first=first, second=second)
    return replace(result, masks=None)


def summary(result: Result) -> str:
    """The verdict, or what was found: the line under the picture."""
    first = result.second if isinstance(result, Comparison) else result
    if isinstance(result, Comparison) and (first.found or result.first.found):
        return result.verdict
    if not first.found:
        return "None of these words fit."
    return f"Found {', '.join(c.name for c in first.found[:5])}."


def timing_payload(result: Result, seconds: float) -> Payload:
    """How long it took and, if so, that only the words were scored again."""
    arms = result.arms if isinstance(result, Comparison) else (result,)
    if all(arm.timings.get(key, 0.0) == 0.0 for arm in arms for key in ("propose", "embed")):
        return {"timing": f"Only the words were scored again: {seconds:.1f} s.", "again": True}
    # The regions are found once for all arms.
    stages = [("regions", arms[0].timings.get("propose", 0.0))]
    stages += [(name, sum(arm.timings.get(key, 0.0) for arm in arms)) for name, key in _STAGES]
    parts = ", ".join(f"{name} {spent:.1f} s" for name, spent in stages if spent >= 0.05)
    return {"timing": f"Done in {seconds:.1f} s" + (f": {parts}." if parts else "."), "again": False}


_STAGES = (("CLIP", "embed"), ("words", "text"))
