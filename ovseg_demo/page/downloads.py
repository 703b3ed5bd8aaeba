"""Taking results away: one photo's in a chosen format, or many photos' in one zip."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from ovseg_demo.errors import ImageError
from ovseg_demo.output.export import EXPORTS, export, zip_comparison, zipped
from ovseg_demo.page.api import cached_file
from ovseg_demo.page.batch import BatchPhoto, base_name, run_batch
from ovseg_demo.page.controls import Controls
from ovseg_demo.page.events import ON_MODEL_QUEUE, UNQUEUED, WITH_MEMORY
from ovseg_demo.page.example_results import find_result
from ovseg_demo.page.handlers import Request
from ovseg_demo.page.sent_corrections import with_sent_corrections
from ovseg_demo.page.server.gradio_compat import upload_folder
from ovseg_demo.page.server.gradio_requests import tracked_request
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.page.viewer.component import standalone_page
from ovseg_demo.page.visitor_uploads import read_json, uploaded_file
from ovseg_demo.result import Comparison

__all__ = ["batch_panel", "export_row"]


_PAGE_TITLE = "A page with this result, to open anywhere (HTML)"

_WITH_NAME = """async (key, kind) => {
  const shown = globalThis.ovseg?.shown();
  const corrections = await globalThis.ovseg?.correctionsPath();
  return [shown?.key ?? null, shown ? kind : "zip", shown?.photo_name ?? null, corrections ?? null];
}"""


def export_row(key: gr.Textbox, pool: ModelPool) -> None:
    """One list of formats, one button; the file is made when it is asked for."""
    with gr.Row(elem_id="export"):
        choice = gr.Dropdown(
            [*((exporter.title, kind) for kind, exporter in EXPORTS.items()), (_PAGE_TITLE, "html")],
            value="zip",
            label="Take it away as",
            elem_id="format",
        )
        make = gr.Button("Download", elem_id="make")
        ready = gr.DownloadButton("Save", visible="hidden", elem_id="ready")

    name, corrected = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def prepare(shown: str | None, kind: str, photo_name: str | None, corrections: str | None) -> str:
        if kind == "html":
            return cached_file(standalone_page().encode(), "page.html")
        with tracked_request(pool.tracker, "export", toast=True) as context:
            return made_file(shown, kind, photo_name, corrections, context.check)

    def made_file(
        shown: str | None,
        kind: str,
        photo_name: str | None,
        corrections: str | None,
        check: Callable[[], None],
    ) -> str:
        if not shown:
            raise ImageError("There is no result to take away yet; run a photo first.")
        result = find_result(shown, pool.result_store)
        if result is None:
            raise ImageError("This result is no longer on the server; press Run to make it again.")
        if corrections:
            sent = read_json(uploaded_file(corrections, upload_folder()))
            result = with_sent_corrections(result, sent, check)
        photo = base_name(photo_name or "photo.jpg")
        stem = Path(photo).stem
        if isinstance(result, Comparison):
            if kind == "zip":
                return cached_file(zip_comparison(result, photo, check=check), f"{stem}.zip")
            result = result.second
        files = export(result, (kind,), photo, check=check)
        if len(files) == 1:
            ((file_name, content),) = files.items()
            return cached_file(content, f"{stem}.zip" if kind == "zip" else f"{stem}_{file_name}")
        return cached_file(zipped(files, check), f"{stem}_{kind}.zip")

    made = make.click(
        prepare,
        inputs=[key, choice, name, corrected],
        js=_WITH_NAME,
        outputs=ready,
        concurrency_limit=2,
        api_visibility="private",
    )
    saving = "(file, kind) => globalThis.ovseg.save(file, kind)"
    made.success(None, inputs=[ready, choice], js=saving, api_visibility="private")


def batch_panel(left: Controls, viewer: gr.HTML, pool: ModelPool) -> None:
    """Photos or a zip of them in, a zip of results out; the viewer gets each for its review."""
    with gr.Accordion("Several photos at once", open=False, elem_id="batch"):
        gr.Markdown(
            "Drop photos, or a zip of them. They get the words and settings of the left column; "
            "you get one zip with all formats, and a list of doubtful regions to look at. A photo that "
            "cannot be read does not stop the others."
        )
        uploads = gr.File(label="Photos or zip", file_count="multiple", height=140, elem_id="batch-files")
        with gr.Row(elem_id="batch-buttons"):
            start = gr.Button("Run all", variant="primary", elem_id="batch-run")
            stop = gr.Button("Stop", elem_id="batch-stop")
        told = gr.Textbox(label="Progress", interactive=False, elem_id="batch-told", lines=1, max_lines=8)
        archive = gr.File(label="Results", interactive=False, visible=False, elem_id="batch-results")

    def all_of_them(paths: list[str] | None, *values: Any) -> Iterator[Any]:
        with tracked_request(pool.tracker, "batch", toast=True) as context:
            batch = secrets.token_hex(8)
            for step in run_batch(paths or [], Request(None, *values), pool, context.check):
                # A batch has the time of one request for each of its photos.
                context.timeout_s = pool.settings.timeout_s * step.total
                context.check()
                ready = cached_file(step.archive, "ovseg-batch.zip") if step.archive else None
                shown = gr.File(value=ready, visible=ready is not None)
                sent = gr.skip() if step.photo is None else _batch_payload(batch, step.photo)
                yield "\n".join([step.message, *step.failures]), shown, sent

    running = start.click(
        all_of_them,
        inputs=[uploads, *left.shareable, left.memory, left.prompts],
        js=WITH_MEMORY,
        outputs=[told, archive, viewer],
        show_progress="minimal",
        show_progress_on=[told],
        **ON_MODEL_QUEUE,
    )
    stop.click(lambda: "Stopped.", outputs=told, cancels=[running], **UNQUEUED)


def _batch_payload(batch: str, photo: BatchPhoto) -> dict[str, Any]:
    """For the viewer: the photo's address, its result, and its doubtful regions."""
    path = cached_file(photo.content, photo.name)
    doubts = [asdict(doubt) for doubt in photo.doubts]
    address = f"gradio_api/file={quote(path)}"
    return {"kind": "batch", "batch": batch, "photo": address, "result": photo.payload, "doubts": doubts}
