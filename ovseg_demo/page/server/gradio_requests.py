"""Tracked requests in Gradio: an id, a time limit, an end when the client has left, errors as sentences."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import gradio as gr

from ovseg_demo.page.server.gradio_compat import event_waits, session_id
from ovseg_demo.page.server.request_tracker import RequestContext, RequestTracker

__all__ = ["client_still_waits", "tracked_request", "visitor", "with_error_messages"]

P = ParamSpec("P")
T = TypeVar("T")


def client_still_waits() -> Callable[[], bool]:
    """For a handler: a function that says whether the client still waits for the answer.

    Gradio ends a generator when its visitor leaves, but nothing else, and that only between two of its steps.
    Outside a server the client always waits.
    """
    return event_waits() or (lambda: True)


def visitor() -> str:
    """For a handler: a name for the browser tab that asks; "" outside a server."""
    return session_id()


@contextmanager
def tracked_request(tracker: RequestTracker, kind: str, *, toast: bool = False) -> Iterator[RequestContext]:
    """A tracked request whose errors become Gradio's, which show their sentence to the client.

    Args:
        tracker: counts and times the request.
        kind: which endpoint or button.
        toast: whether the sentence is shown on the page, where Gradio takes it for HTML.
    """
    with tracker.request(kind, client_still_waits()) as context:
        try:
            yield context
        except Exception as error:
            sentence = context.error_message(error)
            # The cause stays out of it: Gradio would print its message, which may quote what was typed.
            raise gr.Error(html.escape(sentence) if toast else sentence, print_exception=False) from None


def with_error_messages(work: Callable[P, T], tracker: RequestTracker, kind: str) -> Callable[P, T]:
    """A button's handler with its errors shown on the page."""

    @wraps(work)  # Gradio names an endpoint's parameters after those of its function
    def handler(*args: P.args, **kwargs: P.kwargs) -> T:
        with tracked_request(tracker, kind, toast=True):
            return work(*args, **kwargs)

    return handler
