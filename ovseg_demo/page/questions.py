"""Questions about the result that is shown, asked by the viewer one after the other:

    importance   what mattered in a region for a word
    space        where words and regions lie in the space that they share
    truth        how right the result is against a label map
    corrected    how right the result is against the corrections of its visitor

The viewer presses a hidden button with a question as JSON, and files where the question has some; the answer
comes back as the viewer's value. Nothing is kept of either. Masks come from the viewer: the server keeps
results without them.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg_demo.errors import ImageError, ResourceError, SettingsError, quoted
from ovseg_demo.models import YOURS
from ovseg_demo.page.events import ON_MODEL_QUEUE, Runner
from ovseg_demo.page.example_results import find_result
from ovseg_demo.page.handlers import arms_in
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.sent_corrections import sent_regions
from ovseg_demo.page.server.gradio_requests import client_still_waits
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.server.request_tracker import RequestCancelledError, RequestContext
from ovseg_demo.page.viewer.payload import map_size
from ovseg_demo.page.visitor_uploads import read_json
from ovseg_demo.progress import run_to_end
from ovseg_demo.result import Segmentation

if TYPE_CHECKING:
    from ovseg_demo.evaluation.truth import Truth

__all__ = ["answer_of", "connect_questions"]

Payload = dict[str, Any]
Mask = npt.NDArray[np.bool_]
Arms = tuple[Segmentation, ...]

_MOST_MASKS = 1000
_ASKED = "() => globalThis.ovseg.question()"
_FAILED = "() => globalThis.ovseg.questionFailed()"
_NOT_UNDERSTOOD = "The question was not understood; reload the page."


def connect_questions(shown: gr.HTML, runner: Runner) -> None:
    """The hidden button and what it calls; a new photo, an example and Stop end the work."""
    pool = runner.pool
    question = gr.Textbox(visible=False)
    files = gr.File(visible=False, file_count="multiple", type="filepath")
    ask = gr.Button("", visible="hidden", elem_id="ask")

    def answer(asked: str, paths: list[str] | None) -> Payload:
        return answer_of(asked, paths or [], pool)

    asking = ask.click(
        answer,
        inputs=[question, files],
        outputs=shown,
        js=_ASKED,
        show_progress="hidden",
        trigger_mode="multiple",
        **ON_MODEL_QUEUE,
    )
    asking.failure(None, js=_FAILED, api_visibility="private")
    runner.events.append(asking)


def answer_of(asked: str, paths: list[str], pool: ModelPool) -> Payload:
    """The answer to a question; never raises.

    Args:
        asked: JSON with `kind`, `to` (comes back with the answer), `key` of the result, and what else the
            kind needs.
        paths: of uploaded files.
        pool: the models and the results.
    """
    try:
        question = json.loads(asked)
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict):
        question = {}
    told: Payload = {"kind": "answer", "to": question.get("to")}
    with pool.tracker.request("question", client_still_waits()) as context:
        try:
            return told | _answered(question, paths, pool, context)
        except RequestCancelledError:
            context.outcome = "stopped"
            return told | {"error": "Stopped."}
        except Exception as error:
            return told | {"error": context.error_message(error)}


def _answered(question: Payload, paths: list[str], pool: ModelPool, context: RequestContext) -> Payload:
    kinds = {"importance": _importance, "space": _space, "truth": _truth, "corrected": _corrected}
    kind, key = question.get("kind"), question.get("key")
    if not isinstance(kind, str) or kind not in kinds or not isinstance(key, str):
        raise SettingsError(_NOT_UNDERSTOOD)
    result = find_result(key, pool.result_store)
    if result is None:
        raise ImageError("This result is no longer on the server; press Run to make it again.")
    arms = arms_in(result)
    if kind in ("importance", "space"):
        # Prompts that a visitor taught were of one request: what they made can be judged, not looked into.
        arms = tuple(arm for arm in arms if arm.arm != YOURS)
        if not arms:
            raise SettingsError("The arm yours cannot be looked into; compare it with adapted and ask again.")
    return kinds[kind](question, paths, arms, pool, context)


def _importance(
    question: Payload, paths: list[str], arms: Arms, pool: ModelPool, context: RequestContext
) -> Payload:
    """For `word`, the index of a class, in the region `mask`, bits in base64 of a deflated map."""
    from ovseg_demo.explanation import stream_importance  # which imports torch

    first, word, mask = arms[0], question.get("word"), question.get("mask")
    if type(word) is not int or not 1 <= word <= len(first.classes):
        raise SettingsError(f"There is no word {quoted(word)} in this result; choose one from the list.")
    try:
        content = base64.b64decode(mask if isinstance(mask, str) else "", validate=True)
    except ValueError:
        raise SettingsError(_NOT_UNDERSTOOD) from None
    (region,) = _masks(content, 1, first)
    segmenter = run_to_end(load_models(pool, Models.of(first), tuple(a.arm for a in arms)), context.check)
    steps = stream_importance(segmenter, first, region, word, tuple(a.arm for a in arms))
    found = run_to_end(steps, context.check)
    return {
        "maps": [
            {
                "arm": one.arm,
                "effect": [[round(float(value), 3) for value in row] for row in one.effect],
                "shown": one.shown.tolist(),
                "margin": round(one.margin, 2),
                "rival": one.rival,
                "pools_photo": one.pools_photo,
                "crop": _picture(one.crop),
            }
            for one in found
        ]
    }


def _picture(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _space(
    question: Payload, paths: list[str], arms: Arms, pool: ModelPool, context: RequestContext
) -> Payload:
    """For the regions whose masks are in a file: bits of one after the other, deflated."""
    from ovseg_demo.explanation import stream_space  # which imports torch

    first, count = arms[0], question.get("count")
    if len(paths) != 1 or type(count) is not int or not 0 < count <= _MOST_MASKS:
        raise SettingsError(_NOT_UNDERSTOOD)
    masks = _masks(Path(paths[0]).read_bytes(), count, first)
    names = tuple(arm.arm for arm in arms[::-1])
    segmenter = run_to_end(load_models(pool, Models.of(first), names), context.check)
    space = run_to_end(stream_space(segmenter, first, masks, names), context.check)
    return {
        "regions": {arm: np.round(points, 4).tolist() for arm, points in space.regions.items()},
        "words": np.round(space.words, 4).tolist(),
        "regions_kept": round(space.regions_kept, 3),
        "words_kept": round(space.words_kept, 3),
        "words_moved": space.words_moved,
    }


def _masks(content: bytes, count: int, seg: Segmentation) -> Mask:
    """(count, h, w) at the size of the viewer's map.

    Raises:
        SettingsError: these are no such masks.
    """
    width, height = map_size(seg)
    each = -(-width * height // 8)
    inflater = zlib.decompressobj()
    try:
        # What is longer than it may be is not unpacked.
        raw = inflater.decompress(content, count * each + 1)
    except zlib.error:
        raw = b""
    if len(raw) != count * each:
        raise SettingsError(_NOT_UNDERSTOOD)
    rows = np.frombuffer(raw, np.uint8).reshape(count, each)
    bits = np.unpackbits(rows, axis=1, count=width * height)
    masks: Mask = bits.reshape(count, height, width).astype(np.bool_)
    if not masks.any(axis=(1, 2)).all():
        raise SettingsError("A region has no pixel; mark at least one.")
    return masks


def _truth(
    question: Payload, paths: list[str], arms: Arms, pool: ModelPool, context: RequestContext
) -> Payload:
    """For a label map, and `classes.json` if there is one, among the files."""
    from ovseg_demo.evaluation.truth import read_truth

    limit = pool.settings.max_file_bytes
    label_map, classes = None, None
    for path in map(Path, paths):
        if path.stat().st_size > limit:
            raise ResourceError(f"{quoted(path.name)} is larger than {limit / 1e6:.0f} MB.")
        if path.suffix.lower() == ".json":
            classes = path.read_bytes()
        elif label_map is None:
            label_map = path.read_bytes()
        else:
            raise ImageError("Drop one label map (PNG), and its classes.json if it has one.")
    if label_map is None:
        raise ImageError("There is no label map; drop a PNG of class numbers.")
    return _judged(arms, read_truth(label_map, arms[0], classes), context)


def _corrected(
    question: Payload, paths: list[str], arms: Arms, pool: ModelPool, context: RequestContext
) -> Payload:
    """For the corrections in a file, in the viewer's form; they take no part in the result."""
    from ovseg_demo.evaluation.truth import corrected_truth

    if len(paths) != 1:
        raise SettingsError(_NOT_UNDERSTOOD)
    corrections = sent_regions(read_json(Path(paths[0])), arms[0].label_map.shape)
    return _judged(arms, corrected_truth(arms[0], corrections), context)


def _judged(arms: Arms, truth: Truth, context: RequestContext) -> Payload:
    from ovseg_demo.evaluation.truth import judge

    context.check()
    shown = np.flatnonzero(np.bincount(truth.labels[truth.labels >= 0], minlength=len(arms[0].classes)))
    known = float(np.mean(truth.labels >= 0))
    judged = {arm.arm: judge(arm, truth) for arm in arms}
    return {
        "known": round(known, 4),
        "examples": int(arms[0].settings.get("memory", 0)),
        "left_out": {name: round(share, 4) for name, share in truth.left_out.items()},
        "shown": [int(place) + 1 for place in shown],
        "arms": {
            name: {
                "miou": _number(one.miou),
                "pixel_accuracy": _number(one.pixel_accuracy),
                "mean_class_accuracy": _number(one.mean_class_accuracy),
                "accuracy": [_number(value) for value in one.accuracy],
                "iou": [_number(value) for value in one.iou],
                "confusion": one.confusion[shown].tolist(),
                "reliability": {
                    "confidence": [round(value, 4) for value in one.reliability.confidence],
                    "right": [round(value, 4) for value in one.reliability.right],
                    "count": list(one.reliability.count),
                    "error": round(one.reliability.error, 4),
                },
            }
            for name, one in judged.items()
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 2)
