"""The viewer: our one component, plain HTML, CSS and JavaScript inside Gradio's own HTML component."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import gradio as gr

from ovseg_demo.output.palette import HUES

__all__ = ["chips", "standalone_page", "viewer"]

_VIEWER = ("decode.js", "paint.js", "viewer.js", "zoom.js", "input.js", "show.js")
"""What shows a result, wherever it comes from."""

_PAGE = (
    "arriving.js",
    "browser_store.js",
    "photos.js",
    "strip.js",
    "requests.js",
    "connection.js",
    "save.js",
)
"""What speaks with the page and the server."""

_STUDY = ("ask.js", "importance.js", "study.js", "scatter.js", "truth.js")
"""What explains a result."""

_EDIT = (
    "masks.js",
    "corrections.js",
    "region_calls.js",
    "edit.js",
    "edit_region.js",
    "edit_tools.js",
    "edit_preview.js",
    "edit_input.js",
    "memory.js",
    "memory_panel.js",
    "teach.js",
    "review.js",
    "corrected_files.js",
)
"""What corrects a result."""


def viewer(first: dict[str, Any] | None, shared: Mapping[str, Any]) -> gr.HTML:
    """The component; its value is one of the objects that `ovseg_demo.page.handlers` sends.

    Args:
        first: what is shown before anything has run; an empty stage if None.
        shared: the fields of a request after the photo, by name, with what they hold at first.
    """
    return gr.HTML(
        value=first or {"kind": "empty"},
        html_template=_read("viewer.html"),
        css_template=_read("viewer.css") + _read("edit.css") + _read("study.css"),
        # One function body: the files share their names, and nothing of them is seen outside.
        js_on_load=script(shared),
        apply_default_css=False,
        elem_id="viewer",
    )


def chips(words: str, nouns: tuple[str, ...]) -> gr.HTML:
    """The words as chips; they read and write the text field `#words`.

    Args:
        words: those that are there at first.
        nouns: names for completion.
    """
    return gr.HTML(
        value=words,
        html_template=_read("chips.html"),
        css_template=_read("chips.css"),
        js_on_load=_read("chips.js"),
        apply_default_css=False,
        elem_id="chips",
        nouns=list(nouns),
    )


def script(shared: Mapping[str, Any]) -> str:
    """The viewer's program, which runs with `element`, `props`, `watch` and `upload` in reach."""
    parts = (_read(name) for name in (*_VIEWER, *_PAGE, *_EDIT, *_STUDY, "receive.js"))
    constants = {"SHARED_FIELDS": list(shared), "DEFAULTS": dict(shared), "HUES": HUES}
    return "\n".join([*(f"const {name} = {json.dumps(value)};" for name, value in constants.items()), *parts])


def standalone_page() -> str:
    """A page that shows one result without any server, once the result stands in the place of `RESULT`."""
    program = "\n".join(_read(name) for name in (*_VIEWER, "standalone.js"))
    parts = {
        "STYLE": _read("standalone.css") + _read("viewer.css"),
        "VIEWER": _read("viewer.html"),
        "PROGRAM": program,
    }
    page = _read("standalone.html")
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


def _read(name: str) -> str:
    return files("ovseg_demo.page.viewer").joinpath(name).read_text(encoding="utf-8")
