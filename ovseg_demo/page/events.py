"""Events of the page: which handler each button and field calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ovseg_demo.errors import ImageError, OvsegError
from ovseg_demo.imaging import load_image
from ovseg_demo.models import MODELS
from ovseg_demo.page.api import MODEL_QUEUE
from ovseg_demo.page.controls import NAMES_ITS_MASKS, SHARED, Controls, model_badge
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import Example
from ovseg_demo.page.handlers import Request, Result, note, run, without_masks
from ovseg_demo.page.server.gradio_requests import client_still_waits, visitor, with_error_messages
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.suggestions import add_word, distractors, preset_text, what_else
from ovseg_demo.result import Comparison

__all__ = ["ON_MODEL_QUEUE", "UNQUEUED", "connect_run", "connect_settings", "connect_words"]

ON_MODEL_QUEUE: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": MODEL_QUEUE,
    "api_visibility": "private",
}
UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# The photo shows at once; the result that was there belongs to another one.
_SHOW_PHOTO = "(photo) => photo ? { kind: 'photo', url: photo.url } : { kind: 'empty' }"


# Told at once, whatever stands in the queue; Stop is there from the first moment.
_WAIT = """() => {
  globalThis.ovsegQuietUntil = globalThis.ovsegQuietUntil === Infinity ? Date.now() + 5000 : 0;
  return [
    { kind: "working", message: "Waiting for a free place …", fraction: 0, begins: true },
    { visible: false, __type__: "update" },
    { visible: true, __type__: "update" },
  ];
}"""

# Told at once, too: the server may be in the middle of a step. When that has ended, Gradio says that the
# request has failed, which is no news, even if that comes when Run has just been pressed again.
_STOP = """() => {
  globalThis.ovsegQuietUntil = Infinity;
  return [
    { kind: "note", level: "stopped", message: "Stopped; what was there stays." },
    { visible: true, __type__: "update" },
    { visible: false, __type__: "update" },
  ];
}"""

_REFUSED = """() => {
  const stopped = globalThis.ovsegQuietUntil === Infinity;
  if (!stopped && Date.now() < globalThis.ovsegQuietUntil) return [];
  const refused = {
    kind: "note", level: "error",
    message: "The demo could not take this request: its waiting line is full, or the connection was " +
      "lost. Please try again in a minute.",
  };
  return [
    stopped ? undefined : refused,
    { visible: true, __type__: "update" },
    { visible: false, __type__: "update" },
  ];
}"""


class Runner:
    """Answer requests on the model's queue; Stop replaces Run while one is answered."""

    def __init__(self, left: Controls, shown: gr.HTML, kept: gr.State, pool: ModelPool) -> None:
        self.left, self.kept, self.pool = left, kept, pool
        self.queue_options: dict[str, Any] = {
            "outputs": [shown, kept, left.start, left.stop],
            "show_progress": "minimal",
            "show_progress_on": [left.line],
            **ON_MODEL_QUEUE,
        }
        self.shown = shown
        self.events: list[Any] = []

    def answer(self, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Shows each step of the answer to a request."""
        for step in run(Request(*values), self.pool, client_still_waits()):
            running = step.payload["kind"] == "working"
            result = (
                gr.skip()
                if step.result is None
                else self.pool.result_store.put(without_masks(step.result), visitor())
            )
            yield step.payload, result, gr.Button(visible=not running), gr.Button(visible=running)

    def again(self, kept: str | Result | None, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The same where the photo has a result already: other words cost next to nothing then."""
        result = self.pool.result_store.get(kept)
        if result is None or not same_photo(values[0], result):
            yield tuple(gr.skip() for _ in range(4))
            return
        yield from self.answer(*values)

    def then_again(self, event: Any) -> None:
        """Scores the words again after an event that changed them."""
        self.events.append(
            event.success(self.again, inputs=[self.kept, *self.left.asked], **self.queue_options)
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
    left, shown, kept = runner.left, runner.shown, runner.kept
    asking = [left.start.click, left.words.submit]
    gr.on(asking, None, outputs=[shown, left.start, left.stop], js=_WAIT, api_visibility="private")
    # "multiple": Run may be pressed before Gradio has noticed a Stop; at other times Stop has Run's place.
    running = gr.on(asking, runner.answer, inputs=left.asked, trigger_mode="multiple", **runner.queue_options)
    runner.events.append(running)
    # Whatever goes wrong in an answer is part of it; this is for requests that never got that far.
    running.failure(None, outputs=[shown, left.start, left.stop], js=_REFUSED, api_visibility="private")
    left.photo.input(None, inputs=left.photo, outputs=shown, js=_SHOW_PHOTO, api_visibility="private")
    left.photo.input(lambda: None, outputs=kept, **UNQUEUED)

    def example(number: int) -> tuple[Any, ...]:
        chosen = examples[number]
        ready = example_result(chosen)
        payload = ready.payload if ready else note("Press Run.", "ready")
        return str(chosen.photo), chosen.words, payload, ready.result if ready else None

    if left.examples is not None:
        left.examples.click(
            example, inputs=left.examples, outputs=[left.photo, left.words, shown, kept], **UNQUEUED
        )
        page.load(None, js=_named_thumbnails(examples), api_visibility="private")
        if ready := example_result(examples[0]):
            page.load(lambda: ready.result, outputs=kept, **UNQUEUED)

    places = [shown, left.start, left.stop]
    left.stop.click(None, outputs=places, js=_STOP, cancels=runner.events, api_visibility="private")


def _named_thumbnails(examples: tuple[Example, ...]) -> str:
    """Gradio's thumbnails are buttons without a name; this gives them theirs."""
    titles = json.dumps([example.title for example in examples])
    hints = json.dumps([f"{example.title}. {example.shows}." for example in examples])
    return f"""() => document.querySelectorAll("#examples .gallery-item").forEach((button, i) => {{
      button.setAttribute("aria-label", {titles}[i]);
      button.title = {hints}[i];
    }})"""


def connect_words(runner: Runner) -> None:
    """Presets, distractors and suggestions; each is scored at once where the photo is known."""
    left, pool = runner.left, runner.pool
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

    def suggest(kept: str | Result | None) -> gr.Dataset:
        result = pool.result_store.get(kept)
        if result is None:
            raise ImageError("There is no result yet; run a photo first.")
        names = what_else(result, pool)
        label = "Click to add" if names else "Nothing more that the list has a name for"
        return gr.Dataset(samples=[[name] for name in names], label=label, visible=True)

    left.suggest.click(
        with_error_messages(suggest, pool.tracker, "what-else"),
        inputs=runner.kept,
        outputs=left.suggestions,
        show_progress="minimal",
        show_progress_on=[left.line],
        **ON_MODEL_QUEUE,
    )
    runner.then_again(
        left.suggestions.click(
            lambda words, sample: add_word(words, sample[0]),
            inputs=[left.words, left.suggestions],
            outputs=left.words,
            **UNQUEUED,
        )
    )


_COPY_LINK = f"""(...values) => {{
  const names = {json.dumps(SHARED)};
  const query = new URLSearchParams(names.map((name, i) => [name, String(values[i])]));
  const link = `${{location.origin}}${{location.pathname}}?${{query}}`;
  history.replaceState(null, "", link);
  const button = document.querySelector("#link"), before = button.textContent;
  const show = (text) => {{
    button.textContent = text;
    setTimeout(() => {{ button.textContent = before; }}, 3000);
  }};
  const copied = navigator.clipboard ? navigator.clipboard.writeText(link) : Promise.reject();
  copied.then(() => show("Copied"), () => show("The link is in the address bar"));
}}"""


def connect_settings(left: Controls, badge: gr.HTML, page: gr.Blocks) -> None:
    """The badge follows the model; a link brings words and settings back."""
    models = [left.options.model, left.options.proposer]
    gr.on([field.change for field in models], model_badge, inputs=models, outputs=badge, **UNQUEUED)
    left.options.proposer.change(
        share_of_clip, inputs=left.options.proposer, outputs=left.options.ensemble, **UNQUEUED
    )
    left.options.model.input(
        own_proposer, inputs=left.options.model, outputs=left.options.proposer, **UNQUEUED
    )
    left.link.click(None, inputs=left.shareable, js=_COPY_LINK, api_visibility="private")

    def restore(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        fields = zip(SHARED, left.shareable, strict=True)
        return [restored(query[name], field) if name in query else gr.skip() for name, field in fields]

    page.load(restore, outputs=left.shareable, **UNQUEUED)


def share_of_clip(proposer: str) -> Any:
    """Only a proposer that names its masks leaves CLIP a share to set; with the others it is gone and 0."""
    return gr.Slider(visible=True) if proposer == NAMES_ITS_MASKS else gr.Slider(visible=False, value=0.0)


def own_proposer(model: str) -> Any:
    """The proposer a model was published with; any other leaves the choice alone."""
    entry = MODELS.get(model)
    return (entry and entry.proposer) or gr.skip()


def restored(text: str, field: Any) -> Any:
    """What a link says of a field; a choice that does not exist leaves the field alone."""
    if isinstance(field, gr.Textbox):
        return text
    if isinstance(field, gr.Checkbox):
        return text != "false"
    if isinstance(field, gr.Slider):
        try:
            value = float(text)
        except ValueError:
            return gr.skip()
        return value if field.minimum <= value <= field.maximum else gr.skip()
    known = {str(value): value for _, value in field.choices}
    return known.get(text, gr.skip())
