"""The left column: what a visitor sets, as one object the handlers are wired to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ovseg_demo.models import MODELS
from ovseg_demo.page.api import photo_input
from ovseg_demo.page.examples import Example
from ovseg_demo.settings import MERGE_RULES, TEMPLATE_SETS, Settings
from ovseg_demo.vocabulary import PRESETS

__all__ = ["Controls", "controls", "model_note"]


@dataclass(frozen=True)
class Controls:
    """The fields and buttons of the left column."""

    photo: gr.Image
    words: gr.Textbox
    start: gr.Button
    stop: gr.Button
    line: gr.HTML
    """Where Gradio shows the place in the queue."""
    examples: gr.Dataset | None
    preset: gr.Dropdown
    add_absent: gr.Button
    look_around: gr.Button
    suggestions: gr.Dataset
    compare: gr.Checkbox
    model: gr.Dropdown
    licence: gr.Markdown
    proposer: gr.Dropdown
    templates: gr.Dropdown
    merge: gr.Dropdown
    link: gr.Button

    @property
    def asked(self) -> list[Any]:
        """What a request is made of, in the order of `handlers.Request`."""
        return [self.photo, self.words, *self.shareable[1:]]

    @property
    def shareable(self) -> list[Any]:
        """What a link restores: everything but the photo."""
        return [self.words, self.compare, self.model, self.proposer, self.templates, self.merge]


def controls(settings: Settings, examples: tuple[Example, ...]) -> Controls:
    """Builds the column."""
    photo = photo_input(
        "Photo", sources=["upload", "clipboard", "webcam"], buttons=[], height=240, elem_id="photo"
    )
    words = gr.Textbox(
        label="Words",
        placeholder="dog, grass, sofa | couch",
        info="Commas between words, a bar between synonyms. Enter runs.",
        lines=1,
        max_lines=6,
        elem_id="words",
    )
    start = gr.Button("Run", variant="primary", elem_id="run")
    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
    line = gr.HTML("", elem_id="queue")
    thumbnails = _thumbnails(examples)
    with gr.Accordion("More words", open=False, elem_id="more-words"):
        preset = gr.Dropdown(
            [("", ""), *((item.title, key) for key, item in PRESETS.items())],
            value="",
            label="Published lists",
            info="Replaces the words. Long lists take longer the first time.",
            elem_id="preset",
        )
        add_absent = gr.Button("Add distractors", size="sm", elem_id="distractors")
        look_around = gr.Button("What else is here?", size="sm", elem_id="what-else")
        suggestions = gr.Dataset(
            components=[gr.Textbox(render=False)],
            samples=[],
            label="Suggestions",
            visible=False,
            elem_id="suggestions",
        )
    return Controls(
        photo,
        words,
        start,
        stop,
        line,
        thumbnails,
        preset,
        add_absent,
        look_around,
        suggestions,
        *_options(settings),
    )


def _thumbnails(examples: tuple[Example, ...]) -> gr.Dataset | None:
    if not examples:
        return None
    return gr.Dataset(
        components=[gr.Image(render=False)],
        samples=[[str(example.photo)] for example in examples],
        label="Examples",
        type="index",
        samples_per_page=len(examples),
        elem_id="examples",
    )


def _options(settings: Settings) -> tuple[Any, ...]:
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        compare = gr.Checkbox(
            True, label="Compare with vanilla CLIP", info="Looks at each region twice, on the same masks."
        )
        model = gr.Dropdown(
            _names("clip"), value=settings.model, label="CLIP", info="Larger ones know more and take longer."
        )
        licence = gr.Markdown(model_note(settings.model), elem_id="licence")
        proposer = gr.Dropdown(
            _names("proposer"), value=settings.proposer, label="Masks", info="What finds the regions."
        )
        templates = gr.Dropdown(
            list(TEMPLATE_SETS),
            value=settings.templates,
            label="Sentences around a word",
            info="vild: 14 of them; imagenet: 80, slower; single: one, fastest.",
        )
        merge = gr.Dropdown(
            list(MERGE_RULES),
            value=settings.merge,
            label="Merge rule",
            info="default can leave pixels unassigned and words not found; the published two cannot.",
        )
        link = gr.Button("Copy a link to these words and settings", size="sm", elem_id="link")
    return compare, model, licence, proposer, templates, merge, link


def model_note(name: str) -> str:
    """A line about the licence of a model; a warning that stays if it forbids commercial use."""
    entry = MODELS.get(name)
    if entry is None:
        return ""
    warning = "**Non-commercial use only.** " if entry.non_commercial else ""
    return f"{warning}{entry.title}. Licence: {entry.licence}."


def _names(kind: str) -> list[str]:
    return [name for name, entry in MODELS.items() if entry.kind == kind]
