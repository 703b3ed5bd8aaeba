"""Gradio still has what the page uses beyond its documented interface."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import gradio as gr
import pytest
from gradio.queueing import Event, Queue

from ovseg_demo.page.server import gradio_compat
from ovseg_demo.page.server.gradio_compat import SEEN_IN

NOTE = f"gradio {version('gradio')} does not have what gradio {SEEN_IN} had"


@pytest.fixture
def page() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox()
    page.queue(max_size=3)
    return page


def test_the_queue_has_the_attributes_that_are_set(page: gr.Blocks) -> None:
    queue = page._queue
    for name in ("ANAYLTICS_CACHE_FREQUENCY", "ANALYTICS_MAX_EVENTS", "event_ids_to_events"):
        assert hasattr(queue, name), f"{NOTE}: Queue.{name}"
    assert hasattr(queue.pending_messages_per_session, "max_size"), NOTE
    gradio_compat.bound_queue(page, 7)
    assert queue.pending_messages_per_session.max_size == 7 and queue.ANALYTICS_MAX_EVENTS == 1
    assert gradio_compat.queue_length(page) == 0


def test_the_attributes_that_are_set_are_those_that_gradio_reads() -> None:
    code = inspect.getsource(Queue)
    for name in ("ANAYLTICS_CACHE_FREQUENCY", "ANALYTICS_MAX_EVENTS", "pending_messages_per_session"):
        assert code.count(f"self.{name}") > 1, f"{NOTE}: Queue.{name}"
    assert "alive" in inspect.getsource(Event), f"{NOTE}: Event.alive"


def test_outside_a_server_there_is_no_event_and_no_visitor() -> None:
    assert gradio_compat.event_waits() is None and gradio_compat.session_id() == ""


def test_files_lie_where_gradio_serves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    made = Path(gradio_compat.cache_file(b"content", "a name.zip"))
    assert gradio_compat.upload_folder() == tmp_path
    assert gradio_compat.upload_key(made) == made.parent.name
    assert made.read_bytes() == b"content" and made.is_relative_to(tmp_path) and made.suffix == ".zip"


def test_the_version_they_were_seen_in_is_allowed() -> None:
    text = (Path(__file__).parents[3] / "requirements.txt").read_text("utf-8")
    (floor,) = (line for line in text.splitlines() if line.startswith("gradio>="))
    assert floor == f"gradio>={SEEN_IN.rpartition('.')[0]},<7"
