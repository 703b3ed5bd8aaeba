"""The left column: what a visitor sets, as one object that the events are connected to."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ovseg_demo.files import size_text
from ovseg_demo.models import ARMS, listed_arms, rows
from ovseg_demo.page.api import photo_input
from ovseg_demo.page.examples import Example
from ovseg_demo.page.handlers import model_use
from ovseg_demo.page.server.result_store import ResultStore
from ovseg_demo.page.suggestions import nouns
from ovseg_demo.page.viewer.component import chips
from ovseg_demo.proposals import NAMING_PROPOSERS
from ovseg_demo.settings import MERGE_RULES, TEMPLATE_SETS, Settings
from ovseg_demo.vocabulary import PRESETS

__all__ = ["MOST_STRICT", "SHARED", "Controls", "Options", "controls", "model_badge"]

"""The proposer that CLIP can share the naming with."""

MOST_STRICT = 3.0
"""Ends of the strictness slider, in log-odds."""

SHARED = (
    "words",
    "compare",
    "model",
    "proposer",
    "templates",
    "merge",
    "strictness",
    "density",
    "max_side_px",
    "ensemble",
    "arm",
    "against",
)
"""What a link restores, by the names it uses: everything but the photo."""

_SIDES = (512, 768, 1024, 1536, 2048)


@dataclass(frozen=True)
class Options:
    """The fields of the settings."""

    compare: gr.Checkbox
    model: gr.Dropdown
    strictness: gr.Slider
    proposer: gr.Dropdown
    density: gr.Dropdown
    max_side_px: gr.Dropdown
    templates: gr.Dropdown
    merge: gr.Dropdown
    ensemble: gr.Slider
    arm: gr.Dropdown
    against: gr.Dropdown


@dataclass(frozen=True)
class Controls:
    """The fields and buttons of the left column."""

    photo: gr.Image
    words: gr.Textbox
    add_distractors: gr.Button
    suggest: gr.Button
    suggestions: gr.Dataset
    start: gr.Button
    stop: gr.Button
    line: gr.HTML
    """Where Gradio shows the place in the queue."""
    examples: gr.Dataset | None
    preset: gr.Dropdown
    options: Options
    link: gr.Button
    result_link: gr.Button
    restore: gr.Button
    """Pressed by the viewer, which then fills photo, words and settings."""
    memory: gr.Textbox
    """Stands for the path of the visitor's memory; `WITH_MEMORY` fills it in."""
    prompts: gr.Textbox
    """Stands for the path of the prompts that the visitor has taught; `WITH_MEMORY` fills it in."""

    @property
    def asked(self) -> list[Any]:
        """What a request is made of, in the order of `handlers.Request`."""
        return [self.photo, *self.shareable, self.memory, self.prompts]

    @property
    def shareable(self) -> list[Any]:
        """The fields of `SHARED`, in its order."""
        return [self.words, *(getattr(self.options, name) for name in SHARED[1:])]

    @property
    def defaults(self) -> dict[str, Any]:
        """What the fields of `SHARED` hold at first."""
        return {name: field.value for name, field in zip(SHARED, self.shareable, strict=True)}


def controls(settings: Settings, examples: tuple[Example, ...]) -> Controls:
    """Build the column; the first example is filled in."""
    first = examples[0] if examples else None
    photo = photo_input(
        "Photo",
        value=str(first.photo) if first else None,
        sources=["upload", "clipboard", "webcam"],
        buttons=[],
        height=208,
        elem_id="photo",
    )
    chips(first.words if first else "", nouns())
    words = gr.Textbox(
        first.words if first else "",
        label="Words as text",
        placeholder="dog, grass, sofa | couch",
        info="Commas between words, a bar between synonyms. Enter runs.",
        lines=1,
        max_lines=6,
        elem_id="words",
    )
    with gr.Row(elem_id="help-with-words"):
        add_distractors = gr.Button("Add absent words", size="sm", elem_id="distractors")
        suggest = gr.Button("What else is here?", size="sm", elem_id="what-else")
    suggestions = gr.Dataset(
        components=[gr.Textbox(render=False)],
        samples=[],
        label="Suggestions",
        visible=False,
        elem_id="suggestions",
    )
    start = gr.Button("Run", variant="primary", elem_id="run")
    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
    line = gr.HTML("", elem_id="queue")
    gr.HTML("<p></p>", elem_id="pending")
    thumbnails = _thumbnails(examples)
    with gr.Accordion("Word lists and settings", open=False, elem_id="settings"):
        preset = gr.Dropdown(
            [("", ""), *((item.title, key) for key, item in PRESETS.items())],
            value="",
            label="Published word lists",
            info="Takes the place of the words. A long list takes longer the first time.",
            elem_id="preset",
        )
        options = _options(settings)
        link = gr.Button("Copy a link to these words and settings", size="sm", elem_id="link")
        result_link = gr.Button("Copy a link to this result", size="sm", elem_id="result-link")
        gr.Markdown(
            "The first link does not hold the photo. The second one shows photo and result to anyone who has "
            f"it, until {ResultStore.RESULTS_PER_VISITOR} newer results of yours replace it, for at most "
            f"{settings.state_lifetime_s / 60:.0f} minutes.",
            elem_id="link-note",
        )
    restore = gr.Button("", visible="hidden", elem_id="restore")
    memory, prompts = gr.Textbox(visible=False), gr.Textbox(visible=False)
    return Controls(
        photo,
        words,
        add_distractors,
        suggest,
        suggestions,
        start,
        stop,
        line,
        thumbnails,
        preset,
        options,
        link,
        result_link,
        restore,
        memory,
        prompts,
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


def listed_models(kind: str, settings: Settings) -> list[tuple[str, str]]:
    """The models of a kind as a visitor chooses them.

    Each with its size, its licence unless the server has it, its speed, and whether it is there.
    """
    listed = []
    for row in rows(cache_dir=settings.cache_dir):
        if row.kind != kind:
            continue
        facts = [row.name]
        if row.size_bytes:
            facts += [size_text(row.size_bytes), _speed(row.size_bytes)]
        if len(row.present) < (len(row.arms) or 1):
            facts += [row.licence, "not on this machine"]
        listed.append((", ".join(facts), row.name))
    return listed


def _speed(size_bytes: int) -> str:
    """What a photo takes without a GPU, by the size of the weights."""
    if size_bytes < 200e6:
        return "seconds"
    return "tens of seconds" if size_bytes < 700e6 else "minutes without a GPU"


def _options(settings: Settings) -> Options:
    compare = gr.Checkbox(
        True,
        label="Compare with vanilla CLIP",
        info="Looks at each region twice, on the same masks. Takes effect with Run.",
    )
    model = gr.Dropdown(
        listed_models("clip", settings),
        value=settings.model,
        label="CLIP",
        info="Larger ones know more and take longer. Takes effect with Run.",
    )
    strictness = gr.Slider(
        -MOST_STRICT,
        MOST_STRICT,
        value=0.0,
        step=0.5,
        label="Strictness",
        info="To the right, a word needs more evidence.",
        elem_id="strictness",
        render=False,  # it stands by the picture
    )
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        proposer = gr.Dropdown(
            listed_models("proposer", settings),
            value=settings.proposer,
            label="Masks",
            info="What finds the regions. Larger ones cut finer and take longer. Takes effect with Run.",
        )
        density = gr.Dropdown(
            [("few, fast", "low"), ("normal", "normal"), ("many, slow", "high")],
            value="normal",
            label="How many masks",
            info="More find smaller things. Takes effect with Run.",
        )
        max_side_px = gr.Dropdown(
            [(f"{side} px", side) for side in sorted({*_SIDES, settings.max_side_px})],
            value=settings.max_side_px,
            label="Working size",
            info="Longer side of the picture. More keeps finer edges and takes more memory. "
            "Takes effect with Run.",
        )
        templates = gr.Dropdown(
            [("14 (ViLD)", "vild"), ("80 (ImageNet)", "imagenet"), ("1", "single")],
            value=settings.templates,
            label="Sentences around a word",
            info="Their mean stands for the word. More are steadier and slower the first time.",
        )
        merge = gr.Dropdown(
            [
                ("default: words may be absent", "default"),
                ("published demo", "published-demo"),
                ("published benchmark", "benchmark"),
            ],
            value=settings.merge,
            label="Merge rule",
            info="The published two give every pixel to some word, there or not.",
        )
        ensemble = gr.Slider(
            0.0,
            1.0,
            value=settings.ensemble,
            step=0.05,
            label="CLIP's share",
            info="Beside maskformer's own naming, with a published rule (ADE20K: 0.7). 0 = CLIP alone.",
            visible=settings.proposer in NAMING_PROPOSERS,
        )
        arms = [*ARMS, *listed_arms()]
        arm = gr.Dropdown(
            [("the best, or adapted beside vanilla", ""), *((name, name) for name in arms)],
            value="",
            label="Arm",
            info="What names the regions: of the CLIP above, or of another one as ARM@MODEL. "
            "Takes effect with Run.",
            allow_custom_value=True,  # refused by a sentence that offers the nearest names
        )
        against = gr.Dropdown(
            [("vanilla", ""), *((name, name) for name in arms)],
            value="",
            label="Compared with",
            info="Any other arm, on the same masks. Takes effect with Run.",
            allow_custom_value=True,
        )
    assert {value for _, value in templates.choices} == set(TEMPLATE_SETS)
    assert {value for _, value in merge.choices} == set(MERGE_RULES)
    return Options(
        compare, model, strictness, proposer, density, max_side_px, templates, merge, ensemble, arm, against
    )


def model_badge(model: str, proposer: str) -> str:
    """The models and what one may do with them, as HTML; marked if one forbids commercial use."""
    told = model_use(model, proposer)
    kind = ' class="restricted"' if told["restricted"] else ""
    title, names, use = (html.escape(told[key], quote=True) for key in ("details", "names", "use"))
    return f'<p{kind} title="{title}"><b>{names}</b> <span>{use}</span></p>'
