"""The page: what stands where, how it is served."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import gradio as gr

from ovseg_demo.errors import OvsegError
from ovseg_demo.page.api import add_endpoints
from ovseg_demo.page.controls import controls, model_badge
from ovseg_demo.page.examples import load_examples
from ovseg_demo.page.loading import arms_of
from ovseg_demo.page.pool import ON_ZERO_GPU, ModelPool
from ovseg_demo.page.shipped import shipped
from ovseg_demo.page.takeaway import batch_panel, export_row
from ovseg_demo.page.theme import PAGE_CSS, theme
from ovseg_demo.page.viewer import viewer
from ovseg_demo.page.wiring import Runner, wire_run, wire_settings, wire_words
from ovseg_demo.settings import Settings

__all__ = ["build", "launch", "served"]

_HEADLINE = "# Type what you want to see\nthen see what mask-adapted CLIP changes."


def build(settings: Settings, pool: ModelPool) -> gr.Blocks:
    """The page, not yet served."""
    examples = load_examples()
    first = shipped(examples[0]) if examples else None
    with gr.Blocks(
        title="ovseg-demo: type what you want to see",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(600, int(settings.state_lifetime_s)),
    ) as page:
        with gr.Row(elem_id="top"):
            gr.Markdown(_HEADLINE, elem_id="headline")
            badge = gr.HTML(model_badge(settings.model, settings.proposer), elem_id="badge")
        kept = gr.State(None, time_to_live=int(settings.state_lifetime_s))
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="inputs", scale=0):
                left = controls(settings, examples)
            with gr.Column(elem_id="outputs", scale=1):
                shown = viewer(first.payload if first else None)
                export_row(kept)
                batch_panel(left, pool)
        runner = Runner(left, shown, kept, pool)
        wire_words(runner)
        wire_run(page, runner, examples)
        wire_settings(left, badge, page)
        add_endpoints(pool)
    page.queue(max_size=settings.max_queue)
    built: gr.Blocks = page
    return built


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
    if ON_ZERO_GPU:
        _warm_up(pool)  # before the GPU's processes are forked, so that each finds the models in place
    served(page, settings, prevent_thread_lock=True)
    if not ON_ZERO_GPU:
        # Only now: what the models import would hold the page up.
        threading.Thread(target=_warm_up, args=(pool,), daemon=True).start()
    page.block_thread()


def _warm_up(pool: ModelPool) -> None:
    # Whoever asks first is told what is wrong.
    with suppress(OvsegError):
        segmenter = pool.get(pool.default)
        for arm in arms_of(pool.settings.model):
            # The text encoder too, which loads itself with its first sentence.
            segmenter.classifier(arm).clip.encode_text(["warm-up"], "single")
