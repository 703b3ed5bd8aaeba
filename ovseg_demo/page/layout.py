"""The page: what stands where, how it is served."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import gradio as gr

from ovseg_demo.errors import OvsegError
from ovseg_demo.models import compared_arms, default_arm
from ovseg_demo.page.api import add_endpoints, endpoint_parameters
from ovseg_demo.page.controls import controls, model_badge
from ovseg_demo.page.downloads import batch_panel, export_row
from ovseg_demo.page.events import Runner, connect_run, connect_settings, connect_words
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import load_examples
from ovseg_demo.page.links import connect_links
from ovseg_demo.page.questions import connect_questions
from ovseg_demo.page.region_calls import CALLS, RegionCalls
from ovseg_demo.page.server.gradio_compat import bound_queue, queue_length, upload_folder
from ovseg_demo.page.server.middleware import RequestFilter
from ovseg_demo.page.server.model_pool import ON_ZERO_GPU, ModelPool
from ovseg_demo.page.server.request_tracker import RequestTracker, log_as_json_lines
from ovseg_demo.page.server.uploads import Sweeper, own_folder
from ovseg_demo.page.teaching import connect_teaching
from ovseg_demo.page.theme import PAGE_CSS, theme
from ovseg_demo.page.viewer.component import viewer
from ovseg_demo.settings import Settings

__all__ = ["build", "launch", "served"]

_HEADLINE = "# Type what you want to see\nthen see what mask-adapted CLIP changes."


def build(settings: Settings, pool: ModelPool) -> gr.Blocks:
    """The page, not yet served."""
    examples = load_examples()
    first = example_result(examples[0]) if examples else None
    with gr.Blocks(
        title="ovseg-demo: type what you want to see",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(600, int(settings.state_lifetime_s)),
    ) as page:
        with gr.Row(elem_id="top"):
            gr.Markdown(_HEADLINE, elem_id="headline")
            gr.HTML(model_badge(settings.model, settings.proposer), elem_id="badge")
        kept = gr.State(
            None, time_to_live=int(settings.state_lifetime_s), delete_callback=pool.result_store.drop
        )
        key = gr.Textbox(visible=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="inputs", scale=0):
                left = controls(settings, examples)
            with gr.Column(elem_id="outputs", scale=1):
                with gr.Row(elem_id="above"):
                    left.options.strictness.render()  # type: ignore[no-untyped-call]
                shown = viewer(first.payload if first else None, left.defaults)
                export_row(key, pool)
                batch_panel(left, shown, pool)
        runner = Runner(left, shown, key, kept, pool)
        connect_words(runner)
        connect_run(page, runner, examples)
        connect_settings(left)
        connect_links(left, shown, page, pool)
        connect_questions(shown, runner)
        connect_teaching(shown, pool)
        add_endpoints(pool)
    # Closed: a call that bypasses the queue bypasses its limits.
    page.queue(max_size=settings.max_queue, api_open=False)
    # There are never more visitors in the line than it is long.
    bound_queue(page, settings.max_queue + settings.max_visitors)
    built: gr.Blocks = page
    return built


def served(
    page: gr.Blocks,
    settings: Settings,
    *,
    tracker: RequestTracker | None = None,
    stored_bytes: Callable[[], int] = lambda: 0,
    pool: ModelPool | None = None,
    **where: Any,
) -> str:
    """Serve a page with its theme and limits behind the request filter; returns its address.

    Args:
        page: from `build`.
        settings: limits.
        tracker: the one of the page's pool; it answers `/healthz` and `/counters`.
        pool: the page's models, which the short calls about regions use; without it there are none.
        stored_bytes: reads how full the folder of uploads is.
        where: Gradio's own arguments for name, port and lifetime of the server.
    """
    regions = RegionCalls(pool, upload_folder()) if pool else None
    filter_options = {
        "short_calls": {name: partial(regions.answer, name) for name in CALLS} if regions else {},
        "settings": settings,
        "tracker": tracker or RequestTracker(settings),
        "folder": upload_folder(),
        "stored_bytes": stored_bytes,
        "endpoints": endpoint_parameters(settings),
        "mcp": bool(where.get("mcp_server")) or os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true",
    }
    _, address, _ = page.launch(
        theme=theme(),
        css=PAGE_CSS,
        max_file_size=settings.max_file_bytes,
        # Our own errors are shown as they are; of others only that there was one.
        show_error=False,
        footer_links=["api"],
        state_session_capacity=settings.max_visitors,
        enable_monitoring=False,
        # What visitors did would be kept in their browsers, photos included.
        run_history=False,
        app_kwargs={
            "middleware": [(RequestFilter, (), filter_options)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        **where,
    )
    return str(address)


def launch(settings: Settings) -> None:
    """Serve the page until it is stopped, where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say."""
    log_as_json_lines()
    with own_folder() as folder:
        pool = ModelPool(settings)
        page = build(settings, pool)
        if ON_ZERO_GPU:
            _warm_up(pool)  # before the GPU's processes are forked, so that each finds the models in place
        sweeper = Sweeper(folder, settings, pool.expire)

        def stored_bytes() -> int:
            return sweeper.stored_bytes

        sweeper.start()
        pool.tracker.gauge("stored_bytes", stored_bytes)
        pool.tracker.gauge("queue_length", lambda: queue_length(page))
        served(
            page,
            settings,
            tracker=pool.tracker,
            stored_bytes=stored_bytes,
            pool=pool,
            prevent_thread_lock=True,
        )
        if not ON_ZERO_GPU:
            # After the page is served: importing the models takes seconds.
            threading.Thread(target=_warm_up, args=(pool,), daemon=True).start()
        page.block_thread()


def _warm_up(pool: ModelPool) -> None:
    # The first request reports what is wrong.
    with suppress(OvsegError):
        segmenter = pool.get(pool.default)
        for arm in {default_arm(pool.settings.model), *compared_arms(pool.settings.model)}:
            # The text encoder too, which loads itself with its first sentence.
            segmenter.classifier(arm).clip.encode_text(["warm-up"], "single")
