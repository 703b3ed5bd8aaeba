"""The viewer: our one component, plain HTML, CSS and JavaScript inside Gradio's own HTML component."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr

__all__ = ["EMPTY", "viewer"]

EMPTY: dict[str, str] = {"kind": "empty"}
"""What the viewer shows before there is anything to show."""

_SCRIPTS = ("decode.js", "paint.js", "viewer.js", "input.js", "receive.js")


def viewer() -> gr.HTML:
    """The component; its value is one of the objects that `ovseg_demo.page.handlers` sends."""
    return gr.HTML(
        value=EMPTY,
        html_template=_read("viewer.html"),
        css_template=_read("viewer.css"),
        # One function body: the files share their names, and nothing of them is seen outside.
        js_on_load="\n".join(_read(name) for name in _SCRIPTS),
        apply_default_css=False,
        elem_id="viewer",
    )


def _read(name: str) -> str:
    return files("ovseg_demo.page").joinpath(name).read_text(encoding="utf-8")
