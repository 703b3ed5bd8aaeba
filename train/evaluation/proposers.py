"""Proposers for evaluation: one with a cache, one that proposes the truth."""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import ovseg_demo.proposals
from ovseg_demo.proposals import Proposals, Proposer, SizedProposer, Steps
from ovseg_demo.proposals.queries import Queries
from train.core.files import write_bytes
from train.data.truth import Segment

# Attributes of proposers that their masks depend on.
_NUMBERS = ("side", "plan", "mask_threshold", "short_side", "weights_sha256", "dtype")


class CachedProposer:
    """A proposer with a cache of the last photo in memory and, given a folder, of all photos on disk.

    The key of a file is a hash of the photo's pixels, the proposer's numbers and weights, and the code of
    `ovseg_demo.proposals`. A damaged file counts as missing. Soft masks are stored with the hard ones and
    take some 10 MB a photo.

    Args:
        proposer: does the work.
        folder: of proposals between runs; made if it is not there.
    """

    def __init__(self, proposer: Proposer, folder: Path | None = None) -> None:
        self.name = proposer.name
        # Results record these facts about their proposer.
        self.weights_sha256: str = getattr(proposer, "weights_sha256", "")
        self.plan = getattr(proposer, "plan", None)
        self._proposer = proposer
        self._folder = folder
        self._last: tuple[str, Proposals] | None = None
        if isinstance(proposer, SizedProposer):
            self.working_image = proposer.working_image

    def stream(self, image: NDArray[np.uint8]) -> Steps:
        """See Proposer.stream."""
        key = self._key(image)
        if self._last is None or self._last[0] != key:
            found = self._read(key, (image.shape[0], image.shape[1]))
            if found is None:
                found = yield from self._proposer.stream(image)
                self._write(key, found)
            self._last = key, found
        yield 1.0
        return self._last[1]

    def _key(self, image: NDArray[np.uint8]) -> str:
        numbers = [getattr(self._proposer, name, None) for name in _NUMBERS]
        digest = hashlib.sha256(repr((self.name, numbers, proposal_code(), image.shape)).encode())
        digest.update(image.tobytes())
        return digest.hexdigest()[:32]

    def _read(self, key: str, size: tuple[int, int]) -> Proposals | None:
        if self._folder is None:
            return None
        try:
            with (self._folder / f"{key}.npz").open("rb") as stream:
                file = np.load(stream, allow_pickle=False)
                bits, quality, boxes = file["masks"], file["quality"], file["boxes"]
                queries = Queries.from_arrays(file) if "logits" in file.files else None
            flat = np.unpackbits(bits, axis=1, count=size[0] * size[1])
            masks = flat.astype(bool).reshape(len(flat), *size)
            return Proposals(masks, quality, boxes, queries)
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
            return None

    def _write(self, key: str, found: Proposals) -> None:
        if self._folder is None:
            return
        count, height, width = found.masks.shape
        bits = np.packbits(found.masks.reshape(count, height * width), axis=1)
        arrays: dict[str, Any] = found.queries.to_arrays() if found.queries else {}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, masks=bits, quality=found.quality, boxes=found.boxes, **arrays)
        write_bytes(self._folder / f"{key}.npz", buffer.getvalue())


@lru_cache(maxsize=1)
def proposal_code() -> str:
    """A hash of the code that proposes; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for path in sorted(Path(ovseg_demo.proposals.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class GroundTruthProposer:
    """Proposes the true segments of the photo that was set last, to measure naming on perfect masks."""

    name = "truth"

    def __init__(self) -> None:
        self._proposals = Proposals.empty(1, 1)

    def set_truth(self, segments: Sequence[Segment], size: tuple[int, int]) -> list[int]:
        """Take the truth of the next photo.

        Args:
            segments: its true segments.
            size: height and width at which the photo will be worked on.

        Returns:
            The class of each proposal, in the order in which they will be proposed; segments that have no
            pixel at that size are left out.
        """
        masks = [_to_size(segment.mask, size) for segment in segments]
        areas = np.array([mask.sum() for mask in masks], dtype=np.int64)
        order = [int(i) for i in np.argsort(-areas, kind="stable") if areas[i]]  # as Proposals.of sorts
        stack = np.stack([masks[i] for i in order]) if order else np.zeros((0, *size), dtype=bool)
        self._proposals = Proposals.of(stack, np.ones(len(stack), dtype=np.float32))
        return [segments[i].class_index for i in order]

    def stream(self, image: NDArray[np.uint8]) -> Steps:
        """See Proposer.stream; the image must have the size that was shown."""
        yield 1.0
        if image.shape[:2] != self._proposals.masks.shape[1:]:
            raise ValueError(
                f"The truth shown is {self._proposals.masks.shape[1:]}, the photo {image.shape}."
            )
        return self._proposals


def _to_size(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    if mask.shape == size:
        return mask
    height, width = size
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT) > 0
