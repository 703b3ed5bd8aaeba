"""Looks: one accent colour, the system's typeface, two weights, light and dark from the same tokens."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors

__all__ = ["PAGE_CSS", "theme"]

_ACCENT = colors.Color(
    name="lagoon",
    c50="#eef7f8",
    c100="#d5ebed",
    c200="#add7db",
    c300="#7dbdc4",
    c400="#4b9fa9",
    c500="#1d7f8b",
    c600="#0f6b76",
    c700="#0c5761",
    c800="#0b464e",
    c900="#0a3940",
    c950="#05252a",
)
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """The theme of the page; asks no other server for fonts."""
    base = gr.themes.Base(
        primary_hue=_ACCENT,
        neutral_hue=colors.zinc,
        font=_FONTS,
        font_mono=_MONO,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
    )
    return base.set(
        body_background_fill="#fbfbfa",
        body_background_fill_dark="#141619",
        background_fill_secondary="#f1f1ef",
        background_fill_secondary_dark="#202328",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1a1c20",
        body_text_color="#1c1f24",
        body_text_color_dark="#e8eaed",
        body_text_color_subdued="#5b616b",
        body_text_color_subdued_dark="#a6acb6",
        border_color_primary="#dcdddb",
        border_color_primary_dark="#363a41",
        color_accent="#0f6b76",
        block_label_text_color="#1c1f24",
        block_label_text_color_dark="#e8eaed",
        block_title_text_color="#1c1f24",
        block_title_text_color_dark="#e8eaed",
        block_info_text_color="#5b616b",
        block_info_text_color_dark="#a6acb6",
        input_placeholder_color="#646b75",
        input_placeholder_color_dark="#9aa1ac",
        button_primary_background_fill="#0f6b76",
        button_primary_background_fill_dark="#4fb0ba",
        button_primary_background_fill_hover="#0c5761",
        button_primary_background_fill_hover_dark="#7dc8cf",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#08262a",
        block_shadow="none",
        block_border_width="1px",
    )


PAGE_CSS = """
.dark { --color-accent: #4fb0ba; --ov-on-accent: #08262a; }
.gradio-container {
  max-width: 1680px !important;
  padding: clamp(12px, 2vw, 24px) clamp(12px, 2vw, 28px) 48px !important;
}
#top { align-items: flex-start; gap: 8px 24px; margin-bottom: 4px; }
#headline h1 { margin: 0; font-size: 26px; font-weight: 600; line-height: 1.25; }
#headline p { margin: 2px 0 0; font-size: 16px; color: var(--body-text-color-subdued); }
#badge { flex: 0 0 auto; min-width: 0; width: auto; padding: 0; }
#badge .html-container { padding: 0; }
#badge p {
  margin: 4px 0 0;
  padding: 4px 12px;
  border: 1px solid var(--border-color-primary);
  border-radius: 16px;
  font-size: 13px;
  color: var(--body-text-color-subdued);
}
#badge p.restricted { border-color: #b07a10; }
#badge b { margin-right: 4px; font-weight: 600; color: var(--body-text-color); }
#columns { gap: 28px; align-items: flex-start; flex-wrap: nowrap; }
#inputs { flex: 0 0 340px !important; min-width: 0 !important; gap: 12px; }
#outputs { min-width: 0 !important; }
#help-with-words { gap: 8px; flex-wrap: nowrap; }
#help-with-words button { min-width: 0; min-height: 36px; flex: 1 1 0; font-weight: 400; }
#suggestions { border: 0; padding: 0; }
#suggestions .gallery { display: flex; flex-wrap: wrap; gap: 6px; }
#suggestions .gallery-item { border-radius: 16px; padding: 4px 12px; min-height: 32px; }
#examples { border: 0; padding: 0; }
#examples .gallery { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 8px; }
#examples .gallery-item { height: 64px; overflow: hidden; border-radius: 6px; }
#examples .gallery-item, #examples .gallery-item * { display: block; width: 100%; margin: 0; }
#examples .gallery-item * { height: 100%; max-width: none; max-height: none; border: 0; object-fit: cover; }
#run, #stop { min-height: 44px; }
#chips, #chips .html-container { padding: 0; overflow: visible; }
#inputs:not(.as-text) :is(#words, .form:has(> #words)) { display: none; }
/* Its news are told above the picture. */
#queue { position: absolute; width: 1px; height: 1px; padding: 0; overflow: hidden; opacity: 0; }
#pending { padding: 0; min-height: 0; }
#pending:not(:has(p:not(:empty))) { display: none; }
#pending p { margin: 0; font-size: 14px; color: var(--body-text-color-subdued); }
#above { gap: 12px; }
#above .form, #strictness { border: 0; background: transparent; min-width: 0; }
#strictness { padding: 0; max-width: 420px; margin: 0 auto 0 0; }
#link-note { font-size: 14px; }
#what-else[aria-busy="true"] {
  background: linear-gradient(90deg, var(--color-accent-soft, #d5ebed) var(--ov-share, 0%), transparent 0);
}
#export { align-items: flex-end; gap: 12px; margin-top: 8px; }
#export .form { max-width: 340px; }
#make { flex: 0 0 160px; min-width: 0; min-height: 44px; }
#viewer .html-container, #queue .html-container { padding: 0; }
.gradio-container .main.fillable { padding: 0; }
@media (max-width: 999px) {
  /* The fields join the picture in one column, so that settings can come after it. */
  #columns { flex-direction: column; align-items: stretch; gap: 12px; }
  #inputs { display: contents !important; }
  #outputs { order: 1; }
  #settings { order: 2; }
  #headline h1 { font-size: 22px; }
  #top { flex-direction: column; }
  #badge p { display: inline-block; margin: 0; font-size: 12px; }
  #examples .gallery { display: flex; flex-wrap: nowrap; overflow-x: auto; }
  #examples .gallery-item { flex: 0 0 84px; width: 84px; }
}
"""
"""Arrangement of the page; the viewer brings its own style."""
