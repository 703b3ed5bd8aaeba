"""What happens when a visitor asks for something: a request in, a stream of what to show out.

Nothing here is shared between visitors but the models; what belongs to one travels through arguments and
Gradio's session state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ovseg_demo.errors import ImageError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import (
    MODELS,
    TAUGHT,
    UNPINNED,
    YOURS,
    ModelEntry,
    UnpinnedModel,
    chosen_arms,
    compared_arms,
)
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.proposal_preview import ProposalPreview
from ovseg_demo.page.sentences import difference, headline, timing
from ovseg_demo.page.server.gradio_compat import upload_folder
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.server.request_tracker import RequestCancelledError, RequestContext
from ovseg_demo.page.viewer.payload import photo_payload, result_payload
from ovseg_demo.page.visitor_uploads import read_memory, read_prompts, uploaded_file
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
    "answer_payload",
    "arms_in",
    "asked_payload",
    "model_use",
    "note",
    "opened_payload",
    "photo_key",
    "run",
    "stream",
    "told_payload",
    "without_masks",
    "working",
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
    arm: str = ""
    """What names the regions, with @MODEL if it is another CLIP's; "" = the usual one."""
    against: str = ""
    """The arm it is compared with; "" = the usual one."""
    memory: str | None = None
    """Path of the uploaded memory; None = none, or it is switched off."""
    prompts: str | None = None
    """Path of the uploaded prompts that the visitor has taught; None = none, or they are switched off."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that are asked for, the one to be shown last; a model may have only one."""
        if self.prompts:
            return (TAUGHT, YOURS) if self.compare else (YOURS,)
        if not self.compare:
            return chosen_arms([self.arm] if self.arm else [], self.model)
        usual = compared_arms(self.model)
        return chosen_arms([self.against or usual[0], self.arm or usual[-1]], self.model)

    @property
    def shared_arms(self) -> tuple[Arm, ...]:
        """Those that all visitors share: taught prompts belong to one."""
        return (TAUGHT,) if self.prompts else self.arms

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


def photo_key(path: str | None) -> str | None:
    """What tells an uploaded photo from others: the folder it lies in, which Gradio names by its content."""
    return Path(path).parent.name if path else None


def run(request: Request, pool: ModelPool, wanted: Callable[[], bool] = lambda: True) -> Iterator[PageUpdate]:
    """Answer a request step by step; never raises. Closing the iterator stops the work.

    Args:
        request: what was asked for.
        pool: the models.
        wanted: whether a client still waits for the answer; if not, the steps end.
    """
    # A visitor may have chosen another photo meanwhile: every step says whose it is.
    of = {"of": photo_key(request.photo)}
    with pool.tracker.request("page", wanted) as context:
        try:
            for step in _steps(request, pool, context):
                yield replace(step, payload=step.payload | of)
        except RequestCancelledError:
            context.outcome = "stopped"
        except Exception as error:
            yield PageUpdate(note(context.error_message(error), "error") | of)


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
    yield PageUpdate(working("Starting", 0.0) | {"photo": photo_payload(image)})

    loading = load_models(pool, request.models, request.shared_arms)
    segmenter = yield from map_steps(loading, lambda step: PageUpdate(working(*step)), context.check)
    steps = stream(segmenter, image, vocabulary, request)
    result = yield from _with_progress(steps, context)
    seconds = time.perf_counter() - started
    yield PageUpdate(
        answer_payload(result, request, Path(request.photo).name, seconds, segmenter.notice), result
    )


def answer_payload(result: Result, request: Request, name: str, seconds: float, notice: str = "") -> Payload:
    """A result as the viewer shows it.

    Args:
        result: with its whole masks.
        request: that it answers.
        name: of the photo's file.
        seconds: that it took.
        notice: of the segmenter.
    """
    message, again = timing(arms_in(result), seconds)
    return result_payload(result) | {
        "kind": "result",
        **told_payload(result),
        "notice": notice,
        "timing": message,
        "again": again,
        "photo_name": name,
        "asked": asked_payload(request),
    }


def _with_progress(
    steps: Generator[Progress, None, Result], context: RequestContext
) -> Generator[PageUpdate, None, Result]:
    started = shown = time.perf_counter()
    preview = ProposalPreview()

    def update(progress: Progress) -> PageUpdate | None:
        nonlocal shown
        preview.take(progress)
        now = time.perf_counter()
        # What follows a step with all regions takes long: it is not left out.
        if now - shown < _SECONDS_BETWEEN_UPDATES and not (progress.stage == "embed" and preview.pending):
            return None
        shown = now
        drawn = preview.payload()
        told = progress.message + (f": {len(preview)} so far" if preview.growing else "")
        payload = working(told + _time_left(progress.fraction, now - started), progress.fraction)
        return PageUpdate(payload | ({"preview": drawn} if drawn else {}))

    return (yield from map_steps(steps, update, context.check))


def working(message: str, fraction: float) -> Payload:
    """A step of an answer: what is done, and how much of it."""
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
    if request.memory:
        options["memory"] = read_memory(uploaded_file(request.memory, upload_folder()))
    if request.prompts:
        segmenter = segmenter.with_prompts(read_prompts(uploaded_file(request.prompts, upload_folder())))
    if len(request.arms) == 2:
        return segmenter.stream_compare(image, vocabulary, (request.arms[0], request.arms[1]), **options)
    return segmenter.stream(image, vocabulary, request.arms[-1], **options)


def without_masks(result: Result) -> Result:
    """What is kept for a visitor: without the whole masks, which are large and for the viewer only."""
    if isinstance(result, Comparison):
        first, second = (replace(arm, masks=None) for arm in result.arms)
        return replace(result, first=first, second=second)
    return replace(result, masks=None)


def arms_in(result: Result) -> tuple[Segmentation, ...]:
    """The arms of a result, the one that is shown first."""
    return result.arms[::-1] if isinstance(result, Comparison) else (result,)


def told_payload(result: Result) -> Payload:
    """What the page says of a result in words, which models made it, and what they were asked with."""
    arms = arms_in(result)
    first = arms[0]
    clips = (arm.models.get("clip", {}).get("name", "") for arm in arms)
    used = dict.fromkeys((*clips, first.models.get("proposer", {}).get("name", "")))
    return {
        "message": headline(first),
        "difference": difference(result) if isinstance(result, Comparison) else "",
        "asked": _asked_of(arms) if "proposer" in first.models else None,
        "made_by": model_use(*used),
    }


def _asked_of(arms: tuple[Segmentation, ...]) -> Payload:
    """Words and models of a result, as far as it tells them."""
    words = arms[0].settings.get("vocabulary", "")
    return {"words": words, "compare": len(arms) == 2, **asdict(Models.of(arms[0]))}


def opened_payload(result: Result) -> Payload:
    """A kept result, shown to a visitor who opens a link to it."""
    return result_payload(result) | {
        "kind": "result",
        "opens": True,
        "of": None,
        **told_payload(result),
        "timing": "A result that was shared by a link. To try other words, drop the photo here.",
        "again": False,
        "photo_name": "photo.jpg",
    }


def asked_payload(request: Request) -> Payload:
    """Words and settings of a request by their names, for the fields of the page."""
    uploads = ("photo", "memory", "prompts")
    return {name: value for name, value in vars(request).items() if name not in uploads}


def model_use(*names: str) -> Payload:
    """The models and what one may do with them.

    Returns:
        `names` and `use` for people, `details` with titles and licences, and `restricted`, which is true if
        one of them forbids commercial use.
    """
    listed: dict[str, ModelEntry | UnpinnedModel] = {**MODELS, **UNPINNED}
    entries = [listed[name] for name in names if name in listed]
    restricted = any(entry.non_commercial for entry in entries)
    use = "non-commercial use only" if restricted else ", ".join(dict.fromkeys(e.licence for e in entries))
    return {
        "names": " + ".join(entry.name for entry in entries),
        "use": use,
        "details": " ".join(f"{e.name}: {e.title}. Licence: {e.licence}." for e in entries),
        "restricted": restricted,
    }
