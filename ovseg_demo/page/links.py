"""Links to words and settings or to a result, and what fills the fields of the page anew."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ovseg_demo.page.controls import SHARED, Controls
from ovseg_demo.page.events import UNQUEUED
from ovseg_demo.page.example_results import find_result
from ovseg_demo.page.handlers import arms_in, opened_payload
from ovseg_demo.page.server.model_pool import ModelPool

__all__ = ["connect_links", "restored"]

# Copies a link that `make` gives for the values, or says in the button why there is none.
_COPY = """(id, link, otherwise) => {
  const button = document.querySelector(id), before = button.textContent;
  const show = (text) => {
    button.textContent = text;
    setTimeout(() => { button.textContent = before; }, 3000);
  };
  if (!link) return show(otherwise);
  const copied = navigator.clipboard ? navigator.clipboard.writeText(link) : Promise.reject();
  copied.then(() => show("Copied"), () => {
    history.replaceState(null, "", link);
    show("The link is in the address bar");
  });
}"""

_COPY_LINK = f"""(...values) => {{
  const names = {json.dumps(SHARED)};
  const query = new URLSearchParams(names.map((name, i) => [name, String(values[i])]));
  const link = `${{location.origin}}${{location.pathname}}?${{query}}`;
  history.replaceState(null, "", link);
  ({_COPY})("#link", link);
}}"""

_COPY_RESULT = f"""() => {{
  const key = globalThis.ovseg.shown()?.key;
  const link = key && `${{location.origin}}${{location.pathname}}?result=${{encodeURIComponent(key)}}`;
  ({_COPY})("#result-link", link, "There is no result yet");
}}"""

_RESTORED = "() => globalThis.ovseg.restored()"

_NO_PHOTO = "() => (new URLSearchParams(location.search).size ? [null] : [])"

_LINK_TOLD = (
    "This link brought words and settings. Its photo has to come along: drop it here, then press Run."
)
_LINK_OVER = "The result of this link is no longer on the server; results live for a while only."


def connect_links(left: Controls, shown: gr.HTML, page: gr.Blocks, pool: ModelPool) -> None:
    """Copy links; a link brings words and settings, or a result, back. So does the viewer."""
    left.link.click(None, inputs=left.shareable, js=_COPY_LINK, api_visibility="private")
    left.result_link.click(None, js=_COPY_RESULT, api_visibility="private")
    left.restore.click(None, outputs=[left.photo, *left.shareable], js=_RESTORED, api_visibility="private")

    def restore(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        fields = zip(SHARED, left.shareable, strict=True)
        values = [restored(query[name], field) if name in query else gr.skip() for name, field in fields]
        if key := query.get("result"):
            result = find_result(key, pool.result_store)
            if result is None:
                opened = {"kind": "empty", "opens": True, "of": None, "message": _LINK_OVER}
            else:
                opened = opened_payload(result) | {"key": key}
                values[0] = str(arms_in(result)[0].settings.get("vocabulary", ""))
            return [opened, *values]
        if any(name in query for name in SHARED):
            return [{"kind": "empty", "opens": True, "of": None, "message": _LINK_TOLD}, *values]
        return [gr.skip(), *values]

    page.load(restore, outputs=[shown, *left.shareable], **UNQUEUED)
    # Not by the server: Gradio rebuilds fields that it leaves alone, without our own reading of uploads.
    page.load(None, outputs=left.photo, js=_NO_PHOTO, api_visibility="private")


def restored(text: str, field: Any) -> Any:
    """What a link says of a field; a choice that does not exist leaves the field alone."""
    if isinstance(field, gr.Textbox):
        return text
    if isinstance(field, gr.Checkbox):
        return text != "false"
    if isinstance(field, gr.Slider):
        try:
            value = float(text)
        except ValueError:
            return gr.skip()
        return value if field.minimum <= value <= field.maximum else gr.skip()
    known = {str(value): value for _, value in field.choices}
    return known.get(text, gr.skip())
