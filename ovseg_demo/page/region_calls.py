"""Short calls about single regions, answered beside the line that the long runs wait in.

The viewer posts JSON to `ovseg/NAME` and gets JSON:

    regions   presses and a box -> up to three masks, the best first and with names
    preview   presses -> the best mask, only where the photo's encoding is kept
    names     masks -> five names each
    like      a mask -> ids of the regions of the photo that look like it
    remember  corrected regions -> examples for the visitor's memory
    open      label files of the photo -> corrected regions
    memory    an uploaded memory -> its examples, if they are of the model

Nothing is kept for a visitor: photo and memory are uploads, which only those find who know their address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from ovseg_demo.caching.memory_cache import MemoryCache
from ovseg_demo.errors import CorrectionError, ProposalError, SettingsError, VocabularyError, quoted
from ovseg_demo.imaging import load_image
from ovseg_demo.models import MODELS, TAUGHT, YOURS, arms_of
from ovseg_demo.output.mask_formats import encode_rle
from ovseg_demo.page.model_downloads import load_models
from ovseg_demo.page.sent_corrections import full_mask, map_size
from ovseg_demo.page.server.model_pool import ModelPool, Models
from ovseg_demo.page.server.request_tracker import RequestContext
from ovseg_demo.page.visitor_uploads import GoneError, read_json, read_memory, uploaded_file
from ovseg_demo.progress import run_to_end
from ovseg_demo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg_demo.memory import Memory
    from ovseg_demo.naming.ranked_names import RankedName
    from ovseg_demo.segmenter import Segmenter

__all__ = ["CALLS", "RegionCalls", "models_asked"]

CALLS = ("regions", "preview", "names", "like", "remember", "open", "memory")

MAX_WAITING = 16
"""Calls that may wait for one that is answered; the next one is told that the demo is busy."""

ALIKE = 0.75
"""Cosine from which on a region counts as alike to another."""

_MAX_MASKS = 64
_MAX_SIDE_PX = 2048
_KEPT_BYTES = 200_000_000

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class RegionCalls:
    """Answers the calls, two at a time.

    Args:
        pool: the models.
        folder: that uploads lie in; nothing outside it is read.
    """

    def __init__(self, pool: ModelPool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder.resolve()
        self._photos: MemoryCache[Image] = MemoryCache(_KEPT_BYTES, pool.settings.state_lifetime_s)
        self._memories: MemoryCache[Memory] = MemoryCache(_KEPT_BYTES, pool.settings.state_lifetime_s)
        self._places = threading.BoundedSemaphore(2)
        self._lock = threading.Lock()
        self._waiting = 0

    def answer(self, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """HTTP status and content for a call.

        Args:
            name: one of `CALLS`.
            body: JSON, from anybody.
        """
        with self._lock:
            if self._waiting >= MAX_WAITING:
                self.pool.tracker.count("refused", "503")
                return 503, {"detail": "The demo is busy just now; please try again in a moment."}
            self._waiting += 1
        try:
            with self._places, self.pool.tracker.request(name) as context:
                return self._answered(name, body, context)
        finally:
            with self._lock:
                self._waiting -= 1

    def _answered(self, name: str, body: bytes, context: RequestContext) -> tuple[int, dict[str, Any]]:
        work: dict[str, Callable[[_Call], dict[str, Any]]] = {
            "regions": _regions,
            "preview": _preview,
            "names": _names,
            "like": _like,
            "remember": _remember,
            "open": self._open,
        }
        try:
            content = _parsed(body)
            if name == "memory":
                return 200, self._opened_memory(content)
            return 200, work[name](self._read(content, context))
        except GoneError:
            context.outcome = "refused"
            return 410, {"detail": "The photo or the memory is no longer on the server; send it again."}
        except Exception as error:
            sentence = context.error_message(error)
            return (500 if context.outcome == "failed" else 422), {"detail": sentence}

    def _read(self, content: Mapping[str, Any], context: RequestContext) -> _Call:
        models = models_asked(content.get("models"), self.pool)
        arm = content.get("arm")
        # Taught prompts belong to a run: single regions are named by the arm that they were taught to.
        arm = TAUGHT if arm == YOURS else arm
        if arm not in arms_of(models.model):
            raise CorrectionError(f"{quoted(arm)} is no arm of {models.model}; press Run again.")
        photo = self._photo(content.get("photo"))
        memory = self._memory(content.get("memory"))
        segmenter = run_to_end(load_models(self.pool, models, (arm,)), context.check)
        return _Call(content, photo, segmenter, arm, memory)

    def _photo(self, path: object) -> Image:
        file = self._upload(path)
        photo = self._photos.get(file)
        if photo is None:
            limits = self.pool.settings
            photo = load_image(file, max_pixels=limits.max_pixels, max_file_bytes=limits.max_file_bytes)
            self._photos.put(file, photo)
        return photo

    def _memory(self, path: object) -> Memory | None:
        if path is None:
            return None
        file = self._upload(path)
        memory = self._memories.get(file)
        if memory is None:
            memory = read_memory(file)
            self._memories.put(file, memory)
        return memory

    def _upload(self, path: object) -> Path:
        return uploaded_file(path, self._folder)

    def _opened_memory(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """A memory that was uploaded, if it can be used with the model that is chosen."""
        memory = read_memory(self._upload(content.get("file")))
        models = models_asked(content.get("models"), self.pool)
        segmenter = run_to_end(load_models(self.pool, models, ()))
        for arm in memory.weights:
            known = arm in arms_of(models.model)
            memory.check(arm, segmenter.weights_id(arm) if known else "", models.model)
        return memory.to_json()

    def _open(self, call: _Call) -> dict[str, Any]:
        """Labels of the photo, from COCO's JSON or a label map with its classes."""
        from ovseg_demo.corrections import corrections_from_content, corrections_from_label_map

        asked = call.content.get("files")
        files = [self._upload(path) for path in asked] if isinstance(asked, list) else []
        pictures = [file for file in files if file.suffix.lower() == ".png"]
        others = [file for file in files if file not in pictures]
        if len(pictures) > 1 or len(others) != 1:
            raise CorrectionError("Choose one COCO JSON, or one label map as PNG together with classes.json.")
        size, told = (call.photo.shape[0], call.photo.shape[1]), read_json(others[0])
        if pictures:
            found = corrections_from_label_map(pictures[0].read_bytes(), told, size)
        else:
            name = call.content.get("photo_name")
            found = corrections_from_content(told, size, photo_name=name if isinstance(name, str) else "")
        whole = size == call.map_size
        return {
            "regions": [
                {"counts": call.small(r.mask), "full": None if whole else r.counts, "name": r.name}
                for r in found
            ]
        }


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CorrectionError("The request is no JSON object; reload the page.")
    return content


class _Call:
    """One call, read and with its models."""

    def __init__(
        self, content: Mapping[str, Any], photo: Image, segmenter: Segmenter, arm: str, memory: Memory | None
    ) -> None:
        self.content, self.photo, self.segmenter, self.arm, self.memory = (
            content,
            photo,
            segmenter,
            arm,
            memory,
        )
        self.map_size = map_size(content.get("map"))

    @property
    def words(self) -> Vocabulary | tuple[()]:
        """The words of the page; none where they cannot be used, which a run tells."""
        text, limits = self.content.get("words"), self.segmenter.settings
        try:
            return Vocabulary.parse(
                text if isinstance(text, str) else "",
                max_names=limits.max_names,
                max_name_length=limits.max_name_length,
            )
        except VocabularyError:
            return ()

    @property
    def masks(self) -> list[Mask]:
        """The masks that were sent, at the size of the photo."""
        codes = self.content.get("masks")
        if not isinstance(codes, list) or not 0 < len(codes) <= _MAX_MASKS:
            raise CorrectionError(f"A call takes 1 to {_MAX_MASKS} masks.")
        return [full_mask(code, self.map_size, self.photo.shape[:2]) for code in codes]

    def small(self, mask: Mask) -> str:
        """Run lengths of a mask at the size of the map."""
        height, width = self.map_size
        if mask.shape == (height, width):
            return encode_rle(mask)
        code = np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255)
        resized = cv2.resize(code, (width, height), interpolation=cv2.INTER_AREA)
        return encode_rle(resized > min(127, int(resized.max()) - 1))

    def named(self, masks: list[Mask]) -> list[list[dict[str, Any]]]:
        """Five names for each mask."""
        ranked = self.segmenter.name_masks(
            self.photo, masks, self.words, (self.arm,), templates=self._templates, memory=self.memory
        )
        return [[_told(name) for name in row] for row in ranked[self.arm]]

    @property
    def _templates(self) -> Any:
        return self.segmenter.settings.templates


def _told(name: RankedName) -> dict[str, Any]:
    return {"name": name.name, "score": round(name.confidence, 4), "typed": name.typed}


def _prompted(call: _Call) -> tuple[list[tuple[float, float, bool]], Any]:
    """Presses and box of a call."""
    points, box = call.content.get("points"), call.content.get("box")
    try:
        pressed = [(float(x), float(y), bool(inside)) for x, y, inside in points or ()]
        dragged = None if box is None else cast(Any, tuple(float(side) for side in box))
    except (TypeError, ValueError):
        raise CorrectionError(
            "A press is two numbers and whether it is inside, a box four numbers."
        ) from None
    if dragged is not None and len(dragged) != 4:
        raise CorrectionError(f"A box has four numbers, not {len(dragged)}.")
    return pressed, dragged


def _preview(call: _Call) -> dict[str, Any]:
    try:
        found = call.segmenter.preview_at(call.photo, _prompted(call)[0])
    except ProposalError:
        # There is no region at this place; elsewhere there may be one.
        return {"kept": True, "counts": None}
    return {"kept": found is not None, "counts": None if found is None else call.small(found.masks[0])}


def _regions(call: _Call) -> dict[str, Any]:
    pressed, dragged = _prompted(call)
    found = call.segmenter.regions_at(call.photo, pressed, dragged)
    names = call.named([found.masks[0]])
    masks = [
        {"counts": call.small(mask), "quality": round(float(quality), 4)}
        for mask, quality in zip(found.masks, found.quality, strict=True)
    ]
    masks[0]["names"] = names[0]
    return {"masks": masks}


def _names(call: _Call) -> dict[str, Any]:
    return {"names": call.named(call.masks)}


def _like(call: _Call) -> dict[str, Any]:
    found = call.segmenter.more_like_this(call.photo, call.masks[0], call.arm)
    return {"alike": [region_id for region_id, cosine in found if cosine >= ALIKE]}


def _remember(call: _Call) -> dict[str, Any]:
    from ovseg_demo.corrections import CorrectedRegion

    names = call.content.get("names")
    masks = call.masks
    if not isinstance(names, list) or len(names) != len(masks):
        raise CorrectionError("Every mask that is remembered needs a name.")
    regions = [CorrectedRegion.of(mask, name) for mask, name in zip(masks, names, strict=True)]
    return call.segmenter.remember(call.photo, regions).to_json()


def models_asked(value: object, pool: ModelPool) -> Models:
    """Models by name, as the fields of the page offer them; a path is none."""
    asked = value if isinstance(value, dict) else {}
    own = pool.default
    model, proposer = asked.get("model", own.model), asked.get("proposer", own.proposer)
    density, side = asked.get("density", own.density), asked.get("max_side_px", own.max_side_px)
    if model != own.model and not (model in MODELS and MODELS[model].kind == "clip"):
        raise SettingsError(f"There is no model {quoted(model)} here.")
    if proposer != own.proposer and not (proposer in MODELS and MODELS[proposer].kind == "proposer"):
        raise SettingsError(f"There is no proposer {quoted(proposer)} here.")
    if density not in ("low", "normal", "high"):
        raise SettingsError(f"The density is {quoted(density)}; it is low, normal or high.")
    if side != own.max_side_px and not (isinstance(side, int | float) and 32 <= side <= _MAX_SIDE_PX):
        raise SettingsError(f"The working size is {quoted(side)}; it is at most {_MAX_SIDE_PX}.")
    return Models(model, proposer, density, int(side))
