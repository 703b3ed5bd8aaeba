"""The page: what stands where, and which handler answers what."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gradio as gr

from ovseg_demo.errors import ImageError, OvsegError
from ovseg_demo.export import EXPORTS, export, zip_comparison, zipped
from ovseg_demo.page.api import LANE, add_endpoints, cached_file, spoken
from ovseg_demo.page.batch import run_batch
from ovseg_demo.page.controls import Controls, controls, model_note
from ovseg_demo.page.examples import Example, load_examples
from ovseg_demo.page.handlers import Request, Result, note, run
from ovseg_demo.page.pool import ModelPool
from ovseg_demo.page.shipped import shipped_payload
from ovseg_demo.page.theme import PAGE_CSS, theme
from ovseg_demo.page.viewer import viewer
from ovseg_demo.page.words import add_word, distractors, preset_text, what_else
from ovseg_demo.result import Comparison
from ovseg_demo.settings import Settings

__all__ = ["build", "launch", "served"]

_IN_LANE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": LANE, "api_visibility": "private"}
_AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

_HEADLINE = "# Type what you want to see\nThen see what mask-adapted CLIP changes."

_COPY_LINK = """(words, compare, model, proposer, templates, merge) => {
  const query = new URLSearchParams({ words, compare, model, proposer, templates, merge });
  const link = `${location.origin}${location.pathname}?${query}`;
  history.replaceState(null, "", link);
  if (navigator.clipboard) navigator.clipboard.writeText(link).catch(() => {});
}"""


def build(settings: Settings, pool: ModelPool) -> gr.Blocks:
    """The page, not yet served."""
    examples = load_examples()
    with gr.Blocks(
        title="ovseg-demo",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(600, int(settings.state_lifetime_s)),
    ) as page:
        gr.Markdown(
            "# Type what you want to see\nThen see what mask-adapted CLIP changes.", elem_id="headline"
        )
        kept = gr.State(None, time_to_live=int(settings.state_lifetime_s))
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="inputs", scale=0):
                left = controls(settings, examples)
            with gr.Column(elem_id="outputs", scale=1):
                shown = viewer(shipped_payload())
                _export_row(kept)
                _batch_panel(left, pool)
        _wire_run(page, left, shown, kept, pool, examples)
        _wire_words(left, kept, pool)
        _wire_settings(left, page)
        add_endpoints(pool)
    page.queue(max_size=settings.max_queue)
    built: gr.Blocks = page
    return built


def _wire_run(
    page: gr.Blocks,
    left: Controls,
    shown: gr.HTML,
    kept: gr.State,
    pool: ModelPool,
    examples: tuple[Example, ...],
) -> None:
    def answer(*values: Any) -> Iterator[tuple[Any, ...]]:
        """Shows each step; Run and Stop change places meanwhile."""
        for step in run(Request(*values), pool):
            running = step.payload["kind"] == "working"
            result = gr.skip() if step.result is None else step.result
            yield step.payload, result, gr.Button(visible=not running), gr.Button(visible=running)

    lane: dict[str, Any] = {
        "inputs": left.asked,
        "outputs": [shown, kept, left.start, left.stop],
        "show_progress": "minimal",
        "show_progress_on": [left.line],
        **_IN_LANE,
    }
    asked = [gr.on([left.start.click, left.words.submit], answer, **lane)]
    if left.examples is not None:
        filled = left.examples.click(
            lambda number: (str(examples[number].photo), examples[number].words),
            inputs=left.examples,
            outputs=[left.photo, left.words],
            **_AT_ONCE,
        )
        asked.append(filled.then(answer, **lane))
        page.load(None, js=_named_thumbnails(examples), api_visibility="private")

    def stopped() -> tuple[Any, ...]:
        told = note("Stopped; what was there stays.", "stopped")
        return told, gr.Button(visible=True), gr.Button(visible=False)

    left.stop.click(stopped, outputs=[shown, left.start, left.stop], cancels=asked, **_AT_ONCE)


def _named_thumbnails(examples: tuple[Example, ...]) -> str:
    """Gradio's thumbnails are buttons without a name; this gives them theirs."""
    titles = json.dumps([example.title for example in examples])
    return f"""() => document.querySelectorAll("#examples .gallery-item").forEach((button, i) => {{
      button.setAttribute("aria-label", {titles}[i]);
      button.title = {titles}[i];
    }})"""


def _wire_words(left: Controls, kept: gr.State, pool: ModelPool) -> None:
    left.preset.input(
        lambda key: preset_text(key) if key else gr.skip(), inputs=left.preset, outputs=left.words, **_AT_ONCE
    )
    left.add_absent.click(distractors, inputs=left.words, outputs=left.words, **_AT_ONCE)

    def look(result: Result | None, model: str, proposer: str) -> gr.Dataset:
        if result is None:
            raise ImageError("There is no result yet; run a photo first.")
        names = what_else(result, pool, model, proposer)
        label = "Click to add" if names else "Nothing more that the lists have a name for"
        return gr.Dataset(samples=[[name] for name in names], label=label, visible=True)

    left.look_around.click(
        spoken(look), inputs=[kept, left.model, left.proposer], outputs=left.suggestions, **_IN_LANE
    )
    left.suggestions.click(
        lambda words, sample: add_word(words, sample[0]),
        inputs=[left.words, left.suggestions],
        outputs=left.words,
        **_AT_ONCE,
    )


def _wire_settings(left: Controls, page: gr.Blocks) -> None:
    left.model.change(model_note, inputs=left.model, outputs=left.licence, **_AT_ONCE)
    left.link.click(None, inputs=left.shareable, js=_COPY_LINK, api_visibility="private")

    def restore(request: gr.Request) -> list[Any]:
        """Fields from the link; a choice that does not exist is left alone."""
        query = dict(request.query_params)
        values: list[Any] = []
        for name, field in zip(
            ("words", "compare", "model", "proposer", "templates", "merge"), left.shareable, strict=True
        ):
            told = query.get(name)
            if name == "compare":
                values.append(told != "false" if told else gr.skip())
            elif told is None or (name != "words" and told not in {value for _, value in field.choices}):
                values.append(gr.skip())
            else:
                values.append(told)
        return values

    page.load(restore, outputs=left.shareable, **_AT_ONCE)


def _export_row(kept: gr.State) -> None:
    """One list of formats, one button; the file is made when it is asked for."""
    with gr.Row(elem_id="export"):
        choice = gr.Dropdown(
            [(exporter.title, key) for key, exporter in EXPORTS.items()],
            value="zip",
            label="Take it away as",
            elem_id="format",
        )
        make = gr.Button("Download", elem_id="make")
        ready = gr.DownloadButton("Save", visible="hidden", elem_id="ready")

    def prepare(result: Result | None, key: str) -> str:
        if result is None:
            raise ImageError("There is no result to take away yet; run a photo first.")
        if isinstance(result, Comparison):
            if key == "zip":
                return cached_file(zip_comparison(result), "ovseg-result.zip")
            result = result.adapted
        files = export(result, (key,))
        if len(files) == 1:
            ((name, content),) = files.items()
            return cached_file(content, "ovseg-result.zip" if key == "zip" else name)
        return cached_file(zipped(files), f"{key}.zip")

    made = make.click(
        spoken(prepare), inputs=[kept, choice], outputs=ready, concurrency_limit=4, api_visibility="private"
    )
    made.success(None, js="() => document.querySelector('#ready')?.click()", api_visibility="private")


def _batch_panel(left: Controls, pool: ModelPool) -> None:
    with gr.Accordion("Several photos at once", open=False, elem_id="batch"):
        gr.Markdown("Drop photos, or a zip of them. They get the words and settings of the left column.")
        uploads = gr.File(label="Photos or zip", file_count="multiple", height=140, elem_id="batch-files")
        with gr.Row():
            start = gr.Button("Run all", elem_id="batch-run")
            stop = gr.Button("Stop", elem_id="batch-stop")
        told = gr.Textbox(label="Progress", interactive=False, elem_id="batch-told", lines=1, max_lines=8)
        archive = gr.File(label="Results", interactive=False, visible=False, elem_id="batch-results")

    def all_of_them(paths: list[str] | None, words: str, model: str, proposer: str) -> Iterator[Any]:
        try:
            for step in run_batch(paths or [], words, pool, model, proposer):
                ready = cached_file(step.archive, "ovseg-batch.zip") if step.archive else None
                shown = gr.File(value=ready, visible=ready is not None)
                yield "\n".join([step.message, *step.failures]), shown
        except OvsegError as error:
            raise gr.Error(str(error), print_exception=False) from error

    running = start.click(
        all_of_them,
        inputs=[uploads, left.words, left.model, left.proposer],
        outputs=[told, archive],
        show_progress="minimal",
        show_progress_on=[told],
        **_IN_LANE,
    )
    stop.click(lambda: "Stopped.", outputs=told, cancels=[running], **_AT_ONCE)


def served(page: gr.Blocks, settings: Settings, **where: Any) -> str:
    """Serves a page with its theme and limits; returns its address.

    `where` are Gradio's own arguments for name, port and lifetime of the server.
    """
    _, address, _ = page.launch(
        theme=theme(),
        css=PAGE_CSS,
        max_file_size=settings.max_file_bytes,
        show_error=True,
        footer_links=["api"],
        state_session_capacity=64,
        **where,
    )
    return str(address)


def launch(settings: Settings) -> None:
    """Serves the page until it is stopped, where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say."""
    pool = ModelPool(settings)
    page = build(settings, pool)
    # The page is up at once; the default models load behind it.
    threading.Thread(target=_warm_up, args=(pool,), daemon=True).start()
    served(page, settings)


def _warm_up(pool: ModelPool) -> None:
    # Whoever asks first is told what is wrong.
    with suppress(OvsegError):
        pool.get(pool.settings.model, pool.settings.proposer)
