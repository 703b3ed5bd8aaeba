"""Named endpoints for programs: `/segment`, `/compare`, `/proposals`, `/models`.

    from gradio_client import Client, handle_file
    client = Client("http://127.0.0.1:7860")
    facts, overlay, label_map = client.predict(
        handle_file("photo.jpg"), "dog, grass, sky", api_name="/segment")

They stand on hidden fields, so Gradio checks types, choices and that a file is one that was uploaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from ovseg_demo.corrections import corrections_from_content
from ovseg_demo.errors import CorrectionError
from ovseg_demo.imaging import load_image
from ovseg_demo.memory import Memory
from ovseg_demo.models import (
    ARMS,
    COMPARED,
    MODELS,
    chosen_arms,
    listed_arms,
    listed_names,
    rows,
)
from ovseg_demo.output.export import export, zip_comparison
from ovseg_demo.output.mask_formats import encode_rle
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.server.gradio_compat import ImageData, cache_file
from ovseg_demo.page.server.gradio_requests import tracked_request
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.server.request_tracker import RequestContext
from ovseg_demo.page.server.short_calls import EndpointParameters, parameters_of
from ovseg_demo.progress import run_to_end
from ovseg_demo.result import Arm
from ovseg_demo.settings import MERGE_RULES, TEMPLATE_SETS, Settings

if TYPE_CHECKING:
    from ovseg_demo.segmenter import Segmenter

__all__ = ["MODEL_QUEUE", "add_endpoints", "cached_file", "endpoint_parameters", "photo_input"]

MODEL_QUEUE = "model"
"""All events that use a model wait in one line, so that two visitors never share a processor."""

BEST = "best"
"""Stands for the best arm of a model."""

OWN = "own"
"""Stands for the proposer that a model was published with, or else the default one."""


def photo_input(label: str, **looks: Any) -> gr.Image:
    """Gradio's photo field, handing on the file as it was uploaded.

    Gradio would open and rewrite it first; our own loader knows more kinds, limits and sentences.
    """
    field = gr.Image(label=label, type="filepath", image_mode=None, **looks)
    # Not a subclass: Gradio writes a stub file beside the source of every one.
    field.preprocess = _as_uploaded  # type: ignore[method-assign]
    return field


def _as_uploaded(payload: ImageData | None) -> str | None:
    return payload.path if payload else None


def cached_file(content: bytes, name: str) -> str:
    """Path of a file in Gradio's cache: anyone who has the path can fetch it until the cache is emptied."""
    return cache_file(content, name)


def add_endpoints(pool: ModelPool) -> None:
    """Add the endpoints to the page that is being built."""
    settings = pool.settings
    with gr.Column(visible=False):
        photo = photo_input("photo")
        words = gr.Textbox(label="words", info="names parted by commas, synonyms by a bar")
        every = [*ARMS, *listed_arms()]
        # What is not on the lists of arms is refused by our own sentence, which offers the nearest names.
        free: dict[str, Any] = {"allow_custom_value": True}
        weights = gr.Dropdown([BEST, *every], value=BEST, label="weights", **free)
        first, second = (gr.Dropdown(every, value=arm, label=arm, **free) for arm in COMPARED)
        model = gr.Dropdown(list(listed_names("clip")), value=settings.model, label="model")
        proposer = gr.Dropdown([OWN, *listed_names("proposer")], value=OWN, label="proposer")
        templates = gr.Dropdown(list(TEMPLATE_SETS), value=settings.templates, label="templates")
        merge = gr.Dropdown(list(MERGE_RULES), value=settings.merge, label="merge")
        strictness = gr.Number(0.0, label="strictness", minimum=-10, maximum=10)
        density = gr.Dropdown(["low", "normal", "high"], value="normal", label="density")
        ensemble = gr.Number(0.0, label="ensemble", minimum=0, maximum=1)
        corrections = gr.Textbox("", label="corrections", info="corrections.json or COCO's JSON, as text")
        memory = gr.File(label="memory", type="filepath")
        facts, table = gr.JSON(label="facts"), gr.JSON(label="models")
        overlay, label_map = gr.File(label="overlay.png"), gr.File(label="label_map.png")
        archive = gr.File(label="everything.zip")
        masks = gr.JSON(label="masks")
        button = gr.Button()

    common: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": MODEL_QUEUE}
    models = Endpoints(pool)
    button.click(
        models.segment,
        inputs=[
            photo,
            words,
            weights,
            model,
            proposer,
            templates,
            merge,
            strictness,
            density,
            ensemble,
            corrections,
            memory,
        ],
        outputs=[facts, overlay, label_map],
        api_name="segment",
        **common,
    )
    button.click(
        models.compare,
        inputs=[
            photo,
            words,
            model,
            proposer,
            templates,
            merge,
            strictness,
            density,
            ensemble,
            first,
            second,
            corrections,
            memory,
        ],
        outputs=[facts, archive],
        api_name="compare",
        **common,
    )
    button.click(
        models.proposals,
        inputs=[photo, proposer, density],
        outputs=[masks],
        api_name="proposals",
        **common,
    )
    button.click(models.listed, outputs=[table], api_name="models", queue=False)


def endpoint_parameters(settings: Settings) -> EndpointParameters:
    """What each endpoint takes, with this server's defaults."""
    functions: dict[str, Callable[..., Any]] = {
        "segment": Endpoints.segment,
        "compare": Endpoints.compare,
        "proposals": Endpoints.proposals,
    }
    defaults = {"model": settings.model, "templates": settings.templates, "merge": settings.merge}
    # Bound to nothing: the first parameter is the object itself.
    return {name: tuple(rest) for name, (_, *rest) in parameters_of(functions, defaults).items()}


class Endpoints:
    """What the endpoints do."""

    def __init__(self, pool: ModelPool) -> None:
        self.pool = pool

    def _segmenter(
        self, context: RequestContext, arms: tuple[Arm, ...], model: str, proposer: str, density: str
    ) -> Segmenter:
        """The models of a request, downloaded and loaded in its time."""
        settings = self.pool.settings
        if proposer == OWN:
            entry = MODELS.get(model)
            proposer = (entry and entry.proposer) or settings.proposer
        models = Models(model, proposer, density, settings.max_side_px)
        return run_to_end(load_models(self.pool, models, arms), context.check)

    def _own(self, photo: str, corrections: str, memory: str | None) -> dict[str, Any]:
        """What a person brings along: corrections of this photo, and examples."""
        limits, own = self.pool.settings, dict[str, Any]()
        if corrections.strip():
            image = load_image(
                Path(photo), max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes
            )
            size = (image.shape[0], image.shape[1])
            own["corrections"] = corrections_from_content(_json(corrections), size)
        if memory:
            own["memory"] = Memory.load(memory)
        return own

    def segment(
        self,
        photo: str,
        words: str,
        weights: str = BEST,
        model: str = Settings.model,
        proposer: str = OWN,
        templates: str = Settings.templates,
        merge: str = Settings.merge,
        strictness: float = 0.0,
        density: str = "normal",
        ensemble: float = 0.0,
        corrections: str = "",
        memory: str | None = None,
    ) -> tuple[dict[str, Any], str, str]:
        """Colour the parts of a photo by words; a word that is not in it is reported as not found.

        Args:
            photo: the photo file.
            words: names parted by commas, synonyms by a bar: "dog, sofa | couch".
            weights: an arm of the model, such as vanilla, adapted or context; best is the model's best.
            model: name from /models.
            proposer: name from /models; own is the one that the model was published with, or the default.
            templates: vild, imagenet or single.
            merge: default, benchmark or published-demo.
            strictness: log-odds a word needs on top, -10 to 10; more finds fewer and surer words.
            density: low, normal or high: how many masks are looked for.
            ensemble: share of CLIP, 0 to 1, beside a proposer that names its own masks; 0 is CLIP alone.
            corrections: corrections.json, result.json or COCO's JSON as text: regions that a person has
                named; their names join the words, which may then be empty.
            memory: the file memory.safetensors; regions alike to its examples get their names.
        """
        with tracked_request(self.pool.tracker, "segment") as context:
            own = self._own(photo, corrections, memory)
            (arm,) = chosen_arms([] if weights == BEST else [weights], model)[-1:]
            steps = self._segmenter(context, (arm,), model, proposer, density).stream(
                photo,
                words,
                arm,
                merge=cast(Any, merge),
                templates=cast(Any, templates),
                strictness=strictness,
                ensemble=ensemble,
                **own,
            )
            result = run_to_end(steps, context.check)
            files = export(result, ("overlay", "label-map"), check=context.check)
            return (
                result.to_json(),
                cached_file(files["overlay.png"], "overlay.png"),
                cached_file(files["label_map.png"], "label_map.png"),
            )

    def compare(
        self,
        photo: str,
        words: str,
        model: str = Settings.model,
        proposer: str = OWN,
        templates: str = Settings.templates,
        merge: str = Settings.merge,
        strictness: float = 0.0,
        density: str = "normal",
        ensemble: float = 0.0,
        first: str = COMPARED[0],
        second: str = COMPARED[1],
        corrections: str = "",
        memory: str | None = None,
    ) -> tuple[dict[str, Any], str]:
        """Two arms of one model or of two on the same masks and words: what changes, and everything as a zip.

        Args:
            photo: the photo file.
            words: names parted by commas, synonyms by a bar.
            model: name from /models.
            proposer: name from /models; own is the one that the model was published with, or the default.
            templates: vild, imagenet or single.
            merge: default, benchmark or published-demo.
            strictness: log-odds a word needs on top, -10 to 10; more finds fewer and surer words.
            density: low, normal or high: how many masks are looked for.
            ensemble: share of CLIP, 0 to 1, beside a proposer that names its own masks; 0 is CLIP alone.
            first: an arm of the model, by default vanilla; of another model as ARM@MODEL.
            second: the arm that is compared with it, by default adapted.
            corrections: corrections.json, result.json or COCO's JSON as text; see /segment.
            memory: the file memory.safetensors.
        """
        with tracked_request(self.pool.tracker, "compare") as context:
            own = self._own(photo, corrections, memory)
            first, second = (chosen_arms([arm], model)[-1] for arm in (first, second))
            steps = self._segmenter(context, (first, second), model, proposer, density).stream_compare(
                photo,
                words,
                (first, second),
                merge=cast(Any, merge),
                templates=cast(Any, templates),
                strictness=strictness,
                ensemble=ensemble,
                **own,
            )
            result = run_to_end(steps, context.check)
            facts = {arm.arm: arm.to_json() for arm in result.arms}
            return result.to_json() | facts, cached_file(
                zip_comparison(result, check=context.check), "comparison.zip"
            )

    def proposals(self, photo: str, proposer: str = OWN, density: str = "normal") -> dict[str, Any]:
        """The regions of a photo, without names: COCO run lengths, boxes and predicted quality.

        Args:
            photo: the photo file.
            proposer: name from /models.
            density: low, normal or high: how many masks are looked for.
        """
        with tracked_request(self.pool.tracker, "proposals") as context:
            segmenter = self._segmenter(context, (), self.pool.settings.model, proposer, density)
            found = run_to_end(segmenter.stream_proposals(photo), context.check)
            return {
                "size": list(found.masks.shape[1:]),
                "proposals": [
                    {"counts": encode_rle(mask), "box": box.tolist(), "quality": round(float(quality), 5)}
                    for mask, box, quality in zip(found.masks, found.boxes, found.quality, strict=True)
                ],
            }

    def listed(self) -> list[dict[str, Any]]:
        """The models that can be asked for, their licences, and whether they are on this machine."""
        return [asdict(row) for row in rows(cache_dir=self.pool.settings.cache_dir)]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CorrectionError("The corrections are no JSON; send the text of corrections.json.") from None
