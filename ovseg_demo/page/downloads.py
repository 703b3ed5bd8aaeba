"""Taking results away: one photo's in a chosen format, or many photos' in one zip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from ovseg_demo.errors import ImageError
from ovseg_demo.output.export import EXPORTS, export, zip_comparison, zipped
from ovseg_demo.page.api import cached_file
from ovseg_demo.page.batch import run_batch
from ovseg_demo.page.controls import Controls
from ovseg_demo.page.events import ON_MODEL_QUEUE, UNQUEUED
from ovseg_demo.page.handlers import Request, Result
from ovseg_demo.page.server.gradio_requests import tracked_request
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.result import Comparison

__all__ = ["batch_panel", "export_row"]


def export_row(kept: gr.State, pool: ModelPool) -> None:
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

    def prepare(kept: str | Result | None, key: str) -> str:
        with tracked_request(pool.tracker, "export", toast=True) as context:
            return made_file(kept, key, context.check)

    def made_file(kept: str | Result | None, key: str, check: Callable[[], None]) -> str:
        result = pool.result_store.get(kept)
        if result is None:
            raise ImageError("There is no result to take away yet; run a photo first.")
        if isinstance(result, Comparison):
            if key == "zip":
                return cached_file(zip_comparison(result, check=check), "ovseg-result.zip")
            result = result.second
        files = export(result, (key,), check=check)
        if len(files) == 1:
            ((name, content),) = files.items()
            return cached_file(content, "ovseg-result.zip" if key == "zip" else name)
        return cached_file(zipped(files), f"{key}.zip")

    made = make.click(
        prepare,
        inputs=[kept, choice],
        outputs=ready,
        concurrency_limit=2,
        api_visibility="private",
    )
    made.success(None, js="() => document.querySelector('#ready')?.click()", api_visibility="private")


def batch_panel(left: Controls, pool: ModelPool) -> None:
    """Photos or a zip of them in, a zip of results out."""
    with gr.Accordion("Several photos at once", open=False, elem_id="batch"):
        gr.Markdown(
            "Drop photos, or a zip of them. They get the words and settings of the left column; "
            "you get one zip with all formats. A photo that cannot be read does not stop the others."
        )
        uploads = gr.File(label="Photos or zip", file_count="multiple", height=140, elem_id="batch-files")
        with gr.Row(elem_id="batch-buttons"):
            start = gr.Button("Run all", variant="primary", elem_id="batch-run")
            stop = gr.Button("Stop", elem_id="batch-stop")
        told = gr.Textbox(label="Progress", interactive=False, elem_id="batch-told", lines=1, max_lines=8)
        archive = gr.File(label="Results", interactive=False, visible=False, elem_id="batch-results")

    def all_of_them(paths: list[str] | None, *values: Any) -> Iterator[Any]:
        with tracked_request(pool.tracker, "batch", toast=True) as context:
            for step in run_batch(paths or [], Request(None, *values), pool):
                if step.doing:
                    # A batch has the time of one request for each of its photos.
                    context.timeout_s = pool.settings.timeout_s * step.total
                    context.check()
                ready = cached_file(step.archive, "ovseg-batch.zip") if step.archive else None
                shown = gr.File(value=ready, visible=ready is not None)
                yield "\n".join([step.message, *step.failures]), shown

    running = start.click(
        all_of_them,
        inputs=[uploads, *left.shareable],
        outputs=[told, archive],
        show_progress="minimal",
        show_progress_on=[told],
        **ON_MODEL_QUEUE,
    )
    stop.click(lambda: "Stopped.", outputs=told, cancels=[running], **UNQUEUED)
