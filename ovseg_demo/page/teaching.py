"""Teach mask prompts with a visitor's corrections, beside the line that the runs wait in.

The viewer uploads its corrected photos and a list of their corrections, presses a hidden button with the
path of the list, and gets progress and at the end the prompts as its value. They are kept in the visitor's
browser, which sends them along with a run; nothing of them stays here.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ovseg_demo.errors import CorrectionError, SettingsError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import TAUGHT, arms_of
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.region_calls import models_asked
from ovseg_demo.page.sent_corrections import map_size, sent_regions
from ovseg_demo.page.server.gradio_compat import upload_folder
from ovseg_demo.page.server.gradio_requests import client_still_waits
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.server.request_tracker import RequestCancelledError, RequestContext
from ovseg_demo.page.visitor_uploads import GoneError, read_json, uploaded_file
from ovseg_demo.progress import map_steps

if TYPE_CHECKING:
    from ovseg_demo.teaching import Lesson, TaughtPrompts

__all__ = ["connect_teaching", "teaching_steps"]

Payload = dict[str, Any]

MAX_PHOTOS = 100
"""Most photos that a visitor teaches with."""

_ASKED = "() => globalThis.ovseg.lessonsPath()"
_FAILED = "() => globalThis.ovseg.teachingFailed()"
_STOPPED = "() => globalThis.ovseg.teachingStopped()"


def connect_teaching(shown: gr.HTML, pool: ModelPool) -> None:
    """The hidden buttons that begin and stop it."""
    path = gr.Textbox(visible=False)
    start = gr.Button("", visible="hidden", elem_id="teach")
    stop = gr.Button("", visible="hidden", elem_id="teach-stop")

    def teach(asked: str | None) -> Iterator[Payload]:
        for step in teaching_steps(asked, pool, upload_folder()):
            # Says which request it answers: steps of one that was stopped may come late.
            yield step | {"to": asked}

    working = start.click(
        teach,
        inputs=path,
        outputs=shown,
        js=_ASKED,
        show_progress="hidden",
        # Teach may be pressed before Gradio has noticed a Stop.
        trigger_mode="multiple",
        # A line of its own: runs go on meanwhile, and two who teach wait for each other.
        concurrency_limit=1,
        concurrency_id="teaching",
        api_visibility="private",
    )
    working.failure(None, js=_FAILED, api_visibility="private")
    stop.click(None, js=_STOPPED, cancels=[working], api_visibility="private")


def teaching_steps(asked: str | None, pool: ModelPool, folder: Path) -> Iterator[Payload]:
    """What the viewer gets: progress, and in the end the prompts or a sentence; never raises.

    Args:
        asked: path of the uploaded list: `models`, and `photos`, each with `path`, `map` (height and width of
            the viewer's maps) and `regions` as in the corrections that the viewer sends with an export.
        pool: the models.
        folder: that uploads lie in.
    """
    with pool.tracker.request("teach", client_still_waits()) as context:
        # Two minutes of work on two idle cores; others may use them, too.
        context.timeout_s = 3 * pool.settings.timeout_s
        try:
            taught = yield from _taught(asked, pool, folder, context)
            prompts = base64.b64encode(taught.to_bytes()).decode()
            facts = dict(taught.facts)
            yield {"kind": "taught", "prompts": prompts, "facts": facts, "message": taught.summary}
        except RequestCancelledError:
            context.outcome = "stopped"
        except GoneError:
            context.outcome = "refused"
            yield {"kind": "taught", "error": "The photos are no longer on the server; press Teach again."}
        except Exception as error:
            yield {"kind": "taught", "error": context.error_message(error)}


def _taught(
    asked: str | None, pool: ModelPool, folder: Path, context: RequestContext
) -> Generator[Payload, None, TaughtPrompts]:
    from ovseg_demo.teaching import Lessons, TeachStep, teach

    content = read_json(uploaded_file(asked, folder))
    photos = content.get("photos") if isinstance(content, dict) else None
    if not isinstance(photos, list) or not photos or not all(isinstance(one, dict) for one in photos):
        raise CorrectionError("There are no corrected photos; correct some regions first.")
    if len(photos) > MAX_PHOTOS:
        raise CorrectionError(f"Teaching takes at most {MAX_PHOTOS} photos and {len(photos)} were sent.")
    models = models_asked(content.get("models"), pool)
    if TAUGHT not in arms_of(models.model):
        raise SettingsError(f"{models.model} cannot be taught: it has no arm {TAUGHT}.")

    def told(step: TeachStep) -> Payload:
        return _progress(step.message, step.fraction)

    loading = load_models(pool, models, (TAUGHT,))
    segmenter = yield from map_steps(loading, lambda step: _progress(*step), context.check)
    classifier = segmenter.classifier(TAUGHT)
    reading = (_lesson(one, pool, folder) for one in photos)
    side = segmenter.settings.max_side_px
    steps = Lessons.stream(classifier, reading, len(photos), max_side_px=side)
    lessons = yield from map_steps(steps, told, context.check)
    return (yield from map_steps(teach(classifier, lessons), told, context.check))


def _progress(message: str, fraction: float) -> Payload:
    return {"kind": "teaching", "message": message, "fraction": round(fraction, 3)}


def _lesson(one: Mapping[str, Any], pool: ModelPool, folder: Path) -> Lesson:
    """One photo with its corrections, read when it is its turn."""
    from ovseg_demo.teaching import Lesson

    limits = pool.settings
    file = uploaded_file(one.get("path"), folder)
    image = load_image(file, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
    map_size(one.get("map"))
    return Lesson(image, tuple(sent_regions(one, image.shape)))
