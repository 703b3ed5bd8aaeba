"""The viewer: our one component, plain HTML, CSS and JavaScript inside Gradio's own HTML component."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

__all__ = ["viewer"]

_SCRIPTS = ("decode.js", "paint.js", "viewer.js", "input.js", "receive.js")


def viewer(first: dict[str, Any] | None) -> gr.HTML:
    """The component; its value is one of the objects that `ovseg_demo.page.handlers` sends.

    Args:
        first: what is shown before anything has run; an empty stage if None.
    """
    return gr.HTML(
        value=first or {"kind": "empty"},
        html_template=_read("viewer.html"),
        css_template=_read("viewer.css"),
        # One function body: the files share their names, and nothing of them is seen outside.
        js_on_load="\n".join(_read(name) for name in _SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
    )


def _read(name: str) -> str:
    return files("ovseg_demo.page.viewer").joinpath(name).read_text(encoding="utf-8")
