"""Taught mask prompts, their file, and the arm that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.mask_prompts import MaskPrompts
from ovseg_demo.errors import CheckpointError, quoted
from ovseg_demo.files import write_bytes

_FORMAT = "ovseg-demo prompts"
_TENSOR = "mask_embedding"
MAX_BYTES = 20_000_000
"""Most bytes of a file of prompts."""


@dataclass(frozen=True, eq=False)
class TaughtPrompts:
    """What was learned from corrections.

    Attributes:
        prompts: (depth, positions, width) float32.
        model: name of the model, for messages.
        weights: identifies the weights of the arm that they belong to.
        facts: what is told about them: names, regions, and hits before and after on regions kept out.
    """

    prompts: NDArray[np.float32]
    model: str
    weights: str
    facts: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """What was learned, in words."""
        known = self.facts.get
        return (
            f"Taught with {known('regions', 0)} regions of {len(known('names', ()))} names; of "
            f"{known('kept_out', 0)} that were kept out, {known('right_before', 0)} are named right before "
            f"and {known('right_after', 0)} after"
        )

    def to_bytes(self) -> bytes:
        """The file `prompts.safetensors`."""
        from safetensors.numpy import save

        notes = {"format": _FORMAT, "model": self.model, "weights": self.weights}
        notes["facts"] = json.dumps(dict(self.facts), ensure_ascii=False)
        return bytes(save({_TENSOR: np.ascontiguousarray(self.prompts, np.float32)}, metadata=notes))

    def save(self, path: str | Path) -> None:
        """Write the file.

        Raises:
            OutputError: it cannot be written.
        """
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> TaughtPrompts:
        """Read the file, from anybody.

        Raises:
            CheckpointError: it is no file of taught prompts, or it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            if len(content) > MAX_BYTES:
                raise ValueError("too large")
            length = int.from_bytes(content[:8], "little")
            if not 0 < length <= len(content) - 8:
                raise ValueError("no head")
            notes = json.loads(content[8 : 8 + length])["__metadata__"]
            prompts = load(content)[_TENSOR]
            good = prompts.ndim == 3 and prompts.dtype == np.float32 and np.isfinite(prompts).all()
            if notes["format"] != _FORMAT or not good:
                raise ValueError("of another kind")
            return cls(prompts, str(notes["model"]), str(notes["weights"]), dict(json.loads(notes["facts"])))
        except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"This is no file of taught prompts, or it is damaged ({type(error).__name__}); choose the "
                "prompts.safetensors that teaching wrote."
            ) from None

    @classmethod
    def load(cls, path: str | Path) -> TaughtPrompts:
        """Read the file by its path; errors as for `from_bytes`."""
        try:
            with Path(path).open("rb") as file:
                return cls.from_bytes(file.read(MAX_BYTES + 1))
        except OSError as error:
            raise CheckpointError(
                f"The prompts {quoted(path, 200)} cannot be read ({error.strerror}); check the path."
            ) from None

    def arm_of(self, clip: MaskAdaptedCLIP) -> MaskAdaptedCLIP:
        """The arm with these prompts in the place of its own; `clip` itself stays as it is.

        Raises:
            CheckpointError: they were taught to other weights.
        """
        own = clip.weights_id or clip.tower_id
        if own != self.weights or not clip.has_prompts:
            raise CheckpointError(
                f"The prompts were taught to {quoted(self.model)[1:-1]} (weights {self.weights[:8]}) and not "
                f"to the {clip.name} that is in use ({own[:8]}); choose that model, or teach again."
            )
        before: MaskPrompts = cast(Any, clip.image_tower).prompts
        depth, *place = self.prompts.shape
        if tuple(place) != tuple(before.mask_embedding.shape[1:]) or not 0 < depth <= 64:
            raise CheckpointError(
                f"The prompts have the shape {self.prompts.shape}, which is not this model's."
            )
        import torch

        prompts = MaskPrompts(depth, int(place[0]), int(place[1])).requires_grad_(False)
        prompts.mask_embedding.copy_(torch.from_numpy(self.prompts.copy()))
        return clip.with_prompts(prompts, hashlib.sha256(self.to_bytes()).hexdigest())


__all__ = ["TaughtPrompts"]
