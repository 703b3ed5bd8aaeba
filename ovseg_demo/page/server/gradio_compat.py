"""What the page uses of Gradio beyond its documented interface, all in this module.

Another release of Gradio may name these things otherwise: `tests/page/server/test_gradio_compat.py` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext
from gradio.data_classes import ImageData
from gradio.processing_utils import hash_file, save_bytes_to_cache
from gradio.utils import get_upload_folder

__all__ = [
    "SEEN_IN",
    "ImageData",
    "bound_queue",
    "cache_file",
    "event_waits",
    "queue_length",
    "session_id",
    "upload_folder",
    "upload_key",
]

SEEN_IN = "6.31.0"
"""The release of Gradio that these were last seen in."""


def event_waits() -> Callable[[], bool] | None:
    """For a handler: a function that says whether its event is still wanted; None outside a server."""
    event_id, blocks = LocalContext.event_id.get(None), LocalContext.blocks.get(None)
    if not event_id or blocks is None:
        return None
    events = blocks._queue.event_ids_to_events
    event = events.get(event_id)
    if event is None:
        return None
    # A lost connection sets `alive` to False; Stop removes the event.
    return lambda: bool(event.alive) and events.get(event_id) is event


def session_id() -> str:
    """For a handler: Gradio's name for the browser tab that asks; "" outside a server."""
    request = LocalContext.request.get(None)
    return (request and request.session_hash) or ""


def bound_queue(page: gr.Blocks, sessions: int) -> None:
    """Limit what the queue of a page keeps.

    Args:
        page: after `page.queue()`.
        sessions: number of visitors whose unread answers are kept.
    """
    page._queue.pending_messages_per_session.max_size = sessions
    # Gradio's own figures, which the page does not show, are computed again after every event.
    page._queue.ANAYLTICS_CACHE_FREQUENCY, page._queue.ANALYTICS_MAX_EVENTS = 10**9, 1


def queue_length(page: gr.Blocks) -> int:
    """How many events wait."""
    return len(page._queue)


def upload_folder() -> Path:
    """Where Gradio keeps uploads and the files it serves."""
    return Path(get_upload_folder())


def cache_file(content: bytes, name: str) -> str:
    """Put a file where Gradio serves it; returns its path."""
    return str(save_bytes_to_cache(content, name, get_upload_folder()))


def upload_key(path: Path) -> str:
    """The name of the folder that a file lies in once it is uploaded."""
    return str(hash_file(path))
