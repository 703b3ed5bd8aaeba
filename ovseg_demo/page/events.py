"""Events of the page: which handler each button and field calls."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np

from ovseg_demo.errors import OvsegError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import MODELS
from ovseg_demo.page.api import MODEL_QUEUE
from ovseg_demo.page.controls import Controls
from ovseg_demo.page.example_results import example_result, find_result
from ovseg_demo.page.examples import Example
from ovseg_demo.page.handlers import (
    Request,
    Result,
    note,
    photo_key,
    run,
    without_masks,
)
from ovseg_demo.page.server.gradio_requests import client_still_waits, tracked_request, visitor
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.server.request_tracker import RequestContext
from ovseg_demo.page.suggestions import add_word, distractors, preset_text, what_else
from ovseg_demo.progress import Progress, map_steps
from ovseg_demo.proposals import NAMING_PROPOSERS
from ovseg_demo.result import Comparison

T = TypeVar("T")

__all__ = [
    "ON_MODEL_QUEUE",
    "UNQUEUED",
    "WITH_KEY",
    "WITH_MEMORY",
    "connect_run",
    "connect_settings",
    "connect_words",
]

ON_MODEL_QUEUE: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": MODEL_QUEUE,
    "api_visibility": "private",
}
_BUSY = '[{ visible: false, __type__: "update" }, { visible: true, __type__: "update" }]'
_IDLE = '[{ visible: true, __type__: "update" }, { visible: false, __type__: "update" }]'

UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# The photo shows at once; the result that was there belongs to another one, as does what is being worked on.
_SHOW_PHOTO = f"(photo) => [globalThis.ovseg.photoPayload(photo), ...{_IDLE}]"

# Told at once, whatever stands in the queue; Stop is there from the first moment.
_WAIT = f"(...asked) => [globalThis.ovseg.begin(asked), ...{_BUSY}]"

# Told at once, too: the server may be in the middle of a step. When that has ended, Gradio says that the
# request has failed, which is not an error, even if Run has just been pressed again.
_STOP = f"() => [globalThis.ovseg.stop(), ...{_IDLE}]"

_HAS_PHOTO = "(photo) => { globalThis.ovseg?.hasPhoto(photo); }"

_FAILED = f"""async () => {{
  const told = await globalThis.ovseg.failed();
  return told ? [told, ...{_IDLE}] : [];
}}"""

WITH_KEY = "(key, ...rest) => [globalThis.ovseg?.shown()?.key ?? null, ...rest]"
"""Puts the key of the result that is shown in the place of the first input."""


WITH_MEMORY = "(...values) => globalThis.ovseg.withMemory(values)"
"""Puts the paths of the visitor's memory and taught prompts in the place of the last two inputs."""

_WITH_BOTH = """async (key, ...values) =>
  [globalThis.ovseg?.shown()?.key ?? null, ...(await globalThis.ovseg.withMemory(values))]"""


class Runner:
    """Answer requests on the model's queue; Stop replaces Run while one is answered.

    Args:
        left: fields and buttons.
        shown: the viewer.
        key: stands for the key of the result that the viewer shows; `WITH_KEY` fills it in.
        kept: the session's last key, whose result ends with the session.
        pool: the models.
    """

    def __init__(
        self, left: Controls, shown: gr.HTML, key: gr.Textbox, kept: gr.State, pool: ModelPool
    ) -> None:
        self.left, self.key, self.kept, self.pool = left, key, kept, pool
        self.queue_options: dict[str, Any] = {
            "outputs": [shown, kept, left.start, left.stop],
            "show_progress": "minimal",
            "show_progress_on": [left.line],
            **ON_MODEL_QUEUE,
        }
        self.shown = shown
        self.events: list[Any] = []

    def answer(self, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Show each step of the answer to a request."""
        told = None
        for step in run(Request(*values), self.pool, client_still_waits()):
            running, payload, key = step.payload["kind"] == "working", step.payload, gr.skip()
            if step.result is not None:
                key = self.pool.result_store.put(without_masks(step.result), visitor())
                payload = payload | {"key": key}
            # Said once: a step that is on its way when Stop is pressed must not take Run away again.
            buttons = (gr.Button(visible=not running), gr.Button(visible=running))
            yield payload, key, *(buttons if running != told else (gr.skip(), gr.skip()))
            told = running

    def again(self, key: str | None, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The same where the photo has a result already: other words take a fraction of a second then."""
        result = find_result(key, self.pool.result_store)
        if result is None or not same_photo(values[0], result):
            yield tuple(gr.skip() for _ in range(4))
            return
        yield from self.answer(*values)

    def then_again(self, event: Any) -> None:
        """Score the words again after an event that changed them."""
        self.events.append(
            event.success(
                self.again, inputs=[self.key, *self.left.asked], js=_WITH_BOTH, **self.queue_options
            )
        )


def same_photo(path: str | None, result: Result) -> bool:
    """Whether a file holds the photo of a result."""
    first = result.second if isinstance(result, Comparison) else result
    try:
        return path is not None and np.array_equal(load_image(Path(path)), first.image)
    except OvsegError:
        return False


def connect_run(page: gr.Blocks, runner: Runner, examples: tuple[Example, ...]) -> None:
    """Run, Enter, Stop, a new photo, an example."""
    left, shown = runner.left, runner.shown
    places = [shown, left.start, left.stop]
    asking = [left.start.click, left.words.submit]
    gr.on(asking, None, inputs=left.asked, outputs=places, js=_WAIT, api_visibility="private")
    # "multiple": Run may be pressed before Gradio has noticed a Stop; at other times Stop has Run's place.
    running = gr.on(
        asking,
        runner.answer,
        inputs=left.asked,
        js=WITH_MEMORY,
        trigger_mode="multiple",
        **runner.queue_options,
    )
    runner.events.append(running)
    # Whatever goes wrong in an answer is part of it; this is for requests that never got that far.
    running.failure(None, outputs=places, js=_FAILED, api_visibility="private")

    def example(number: int) -> tuple[Any, ...]:
        chosen = examples[number]
        ready = example_result(chosen)
        payload = ready.payload if ready else note("Press Run.", "ready")
        return str(chosen.photo), chosen.words, payload, gr.Button(visible=True), gr.Button(visible=False)

    if left.examples is not None:
        left.examples.click(
            example,
            inputs=left.examples,
            outputs=[left.photo, left.words, *places],
            **UNQUEUED,
        )
        left.examples.click(None, cancels=runner.events, api_visibility="private")
        page.load(None, js=_named_thumbnails(examples), api_visibility="private")

    options: dict[str, Any] = {"outputs": places, "cancels": runner.events, "api_visibility": "private"}
    left.photo.input(None, inputs=left.photo, js=_SHOW_PHOTO, **options)
    left.stop.click(None, js=_STOP, **options)
    # Also where no visitor has chosen it: an example, a photo from the strip.
    has_photo: dict[str, Any] = {"inputs": left.photo, "js": _HAS_PHOTO, "api_visibility": "private"}
    left.photo.change(None, **has_photo)
    page.load(None, **has_photo)
    # Suggestions are of the photo that was there.
    left.photo.change(lambda: gr.Dataset(samples=[], visible=False), outputs=left.suggestions, **UNQUEUED)


def _named_thumbnails(examples: tuple[Example, ...]) -> str:
    """Gradio's thumbnails are buttons without a name; this gives them theirs."""
    titles = json.dumps([example.title for example in examples])
    hints = json.dumps([f"{example.title}. {example.shows}." for example in examples])
    return f"""() => document.querySelectorAll("#examples .gallery-item").forEach((button, i) => {{
      button.setAttribute("aria-label", {titles}[i]);
      button.title = {hints}[i];
    }})"""


def _told_aside(
    steps: Generator[Progress, None, T], context: RequestContext, of: dict[str, Any]
) -> Generator[tuple[Any, Any], None, T]:
    """Report work that leaves the shown result as it is."""
    shown = 0.0

    def update(progress: Progress) -> tuple[Any, Any] | None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown < 0.25:
            return None
        shown = now
        told = {"kind": "aside", "message": f"{progress.message} …", "fraction": progress.fraction}
        return gr.skip(), told | of

    return (yield from map_steps(steps, update, context.check))


_TELL_CHIPS = "(words) => { document.dispatchEvent(new CustomEvent('ovseg-words', { detail: words })); }"
_LOOKING = "() => globalThis.ovseg.looking()"
_FAILED_ASIDE = "() => globalThis.ovseg.failedAside()"


def connect_words(runner: Runner) -> None:
    """Presets, distractors and suggestions; each is scored at once where the photo is known."""
    left, pool = runner.left, runner.pool
    left.words.change(None, inputs=left.words, js=_TELL_CHIPS, api_visibility="private")
    runner.then_again(
        left.preset.input(
            lambda key: preset_text(key) if key else gr.skip(),
            inputs=left.preset,
            outputs=left.words,
            **UNQUEUED,
        )
    )
    runner.then_again(
        left.add_distractors.click(distractors, inputs=left.words, outputs=left.words, **UNQUEUED)
    )
    for option in (
        left.options.strictness,
        left.options.templates,
        left.options.merge,
        left.options.ensemble,
    ):
        # While a slider moves, the last place it was seen in counts.
        runner.then_again(option.input(lambda: None, trigger_mode="always_last", **UNQUEUED))

    def suggest(key: str | None, *values: Any) -> Iterator[tuple[Any, Any]]:
        result, request = find_result(key, pool.result_store), Request(*values)
        of = {"of": photo_key(request.photo)}
        if result is not None and not same_photo(request.photo, result):
            result = None
        try:
            with tracked_request(pool.tracker, "what-else") as context:
                names = yield from _told_aside(what_else(request, result, pool), context, of)
        except gr.Error as error:
            yield gr.skip(), note(error.message, "error") | of
            return
        label = "Click to add" if names else "Nothing more that the list has a name for"
        samples = gr.Dataset(samples=[[name] for name in names], label=label, visible=True)
        yield samples, {"kind": "aside", "message": ""} | of

    left.suggest.click(None, outputs=runner.shown, js=_LOOKING, api_visibility="private")
    suggesting = left.suggest.click(
        suggest,
        inputs=[runner.key, *left.asked],
        outputs=[left.suggestions, runner.shown],
        js=WITH_KEY,
        show_progress="hidden",
        **ON_MODEL_QUEUE,
    )
    suggesting.failure(None, outputs=runner.shown, js=_FAILED_ASIDE, api_visibility="private")
    runner.then_again(
        left.suggestions.click(
            lambda words, sample: add_word(words, sample[0]),
            inputs=[left.words, left.suggestions],
            outputs=left.words,
            **UNQUEUED,
        )
    )


_CHANGED = "(...values) => globalThis.ovseg.changed(values)"


def connect_settings(left: Controls) -> None:
    """Settings that belong together move together; those that wait for Run say so."""
    options = left.options
    options.proposer.change(share_of_clip, inputs=options.proposer, outputs=options.ensemble, **UNQUEUED)
    options.model.input(own_proposer, inputs=options.model, outputs=options.proposer, **UNQUEUED)
    looks = (options.compare, options.model, options.proposer, options.density, options.max_side_px)
    waiting = (*looks, options.arm, options.against)
    for field in waiting:
        field.change(None, inputs=left.shareable, js=_CHANGED, api_visibility="private")


def share_of_clip(proposer: str) -> Any:
    """Only a proposer that names its masks leaves CLIP a share to set; with the others it is gone and 0."""
    return gr.Slider(visible=True) if proposer in NAMING_PROPOSERS else gr.Slider(visible=False, value=0.0)


def own_proposer(model: str) -> Any:
    """The proposer a model was published with; any other leaves the choice alone."""
    entry = MODELS.get(model)
    return (entry and entry.proposer) or gr.skip()
