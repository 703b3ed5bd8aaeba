"""Examples and the memory that holds them; its file and its JSON form.

A memory belongs to one person and travels with the request: a server keeps none. Features are comparable
within one set of weights only, so a memory names the weights of each arm, and is refused by others.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg_demo.corrections.corrected_region import correction_name
from ovseg_demo.errors import CorrectionError, quoted
from ovseg_demo.files import write_bytes
from ovseg_demo.memory.thumbnails import MAX_BYTES
from ovseg_demo.result import Arm
from ovseg_demo.vocabulary import fold

MAX_EXAMPLES = 5_000
"""Most examples of one memory."""
MAX_FILE_BYTES = 100_000_000
"""Most bytes of a memory's file."""

_FORMAT = "ovseg-demo memory"
_VERSION = 1
_MAX_WIDTH = 8192

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """One region that a person has named.

    Attributes:
        name: what it shows.
        features: (D,) float32 of length 1 for each arm, as `Segmenter.embed` gives for regions.
        thumbnail: a small JPEG for people; b"" = none.
    """

    name: str
    features: Mapping[Arm, Vector]
    thumbnail: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", correction_name(self.name))
        if not self.features:
            raise CorrectionError(f"The example {quoted(self.name)} has no features; make it from a region.")
        unit = {}
        for arm, feature in self.features.items():
            vector = np.asarray(feature, dtype=np.float32)
            length = float(np.linalg.norm(vector)) if vector.ndim == 1 else 0.0
            if not (np.isfinite(length) and 0.5 < length < 2 and len(vector) <= _MAX_WIDTH):
                raise CorrectionError(
                    f"The {arm} feature of the example {quoted(self.name)} is no unit vector, as that of an "
                    "empty mask; remove the example."
                )
            unit[arm] = vector / np.float32(length)
        object.__setattr__(self, "features", unit)
        if self.thumbnail and (len(self.thumbnail) > MAX_BYTES or self.thumbnail[:3] != b"\xff\xd8\xff"):
            raise CorrectionError(
                f"The picture of the example {quoted(self.name)} is no JPEG of at most {MAX_BYTES:,} bytes."
            )


@dataclass(frozen=True, eq=False)
class Memory:
    """Examples of one person, in the order they were made; immutable, so that undo is the value before.

    Attributes:
        model: name of the model, for messages.
        weights: for each arm what identifies its weights; features of other weights are not comparable.
        examples: each with a feature for every arm of `weights`.
    """

    model: str
    weights: Mapping[Arm, str]
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if len(self.examples) > MAX_EXAMPLES:
            raise CorrectionError(
                f"A memory holds at most {MAX_EXAMPLES:,} examples and this one has {len(self.examples):,}; "
                "remove some."
            )
        arms = set(self.weights)
        widths: dict[Arm, int] = {}
        for example in self.examples:
            if set(example.features) != arms:
                raise CorrectionError(
                    f"The example {quoted(example.name)} has features of {_listed(example.features)} and the "
                    f"memory is of {_listed(arms)}; make it again with this model."
                )
            for arm, feature in example.features.items():
                if widths.setdefault(arm, len(feature)) != len(feature):
                    raise CorrectionError(
                        f"The {arm} features of the memory have {widths[arm]} and {len(feature)} numbers; "
                        "they are of different models."
                    )

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Each name once, in the order of the first examples."""
        names: dict[str, str] = {}
        for example in self.examples:
            names.setdefault(fold(example.name), example.name)
        return tuple(names.values())

    def features(self, arm: Arm) -> npt.NDArray[np.float32]:
        """(N, D) unit vectors of an arm, in the order of the examples; N may be 0."""
        return self._stacked[arm]

    @cached_property
    def _stacked(self) -> dict[Arm, npt.NDArray[np.float32]]:
        empty = np.zeros((0, 0), dtype=np.float32)
        return {
            arm: np.stack([e.features[arm] for e in self.examples]) if self.examples else empty
            for arm in self.weights
        }

    def adding(self, examples: Iterable[Example]) -> Memory:
        """With more examples at the end."""
        return replace(self, examples=(*self.examples, *examples))

    def without(self, indices: Iterable[int]) -> Memory:
        """Without the examples at these places, counted from 0."""
        left_out = set(indices)
        return replace(self, examples=tuple(e for i, e in enumerate(self.examples) if i not in left_out))

    def check(self, arm: Arm, weights: str, model: str) -> None:
        """Refuse to be used by other weights.

        Args:
            arm: that is about to name regions.
            weights: what identifies its weights.
            model: its name, for the message.

        Raises:
            CorrectionError: the memory is of another model, or has no features of this arm.
        """
        if arm not in self.weights:
            raise CorrectionError(
                f"The memory was made with {self._told()} and has nothing of the arm {arm} of {model}; "
                "choose one of its arms, or make its examples again."
            )
        if self.weights[arm] != weights:
            raise CorrectionError(
                f"The memory was made with {self._told()} and not with the {model} that is in use; "
                "choose that model, or make its examples again."
            )

    def _told(self) -> str:
        some = next(iter(self.weights.values()), "")
        return (
            f"{quoted(self.model)[1:-1]} ({_listed(self.weights)}{', weights ' + some[:8] if some else ''})"
        )

    # --- forms ------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The file `memory.safetensors`: a (N, D) float16 tensor for each arm, the rest as JSON inside."""
        from safetensors.numpy import save

        notes = {
            "format": _FORMAT,
            "version": str(_VERSION),
            "model": self.model,
            "weights": json.dumps(dict(self.weights)),
            "names": json.dumps([e.name for e in self.examples], ensure_ascii=False),
            "thumbnails": json.dumps([_text(e.thumbnail) for e in self.examples]),
        }
        tensors = {arm: self.features(arm).astype(np.float16) for arm in self.weights}
        return bytes(save(tensors, metadata=notes))

    @classmethod
    def from_bytes(cls, content: bytes) -> Memory:
        """Read `to_bytes`, from anybody: everything is checked and bounded.

        Raises:
            CorrectionError: it is no memory, is damaged, or holds too many examples.
        """
        if len(content) > MAX_FILE_BYTES:
            raise CorrectionError(
                f"The memory has {len(content):,} bytes and at most {MAX_FILE_BYTES:,} are read; "
                "remove examples and export it again."
            )
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            notes = _notes(content)
            names, pictures = json.loads(notes["names"]), json.loads(notes["thumbnails"])
            weights = json.loads(notes["weights"])
            _check_form(notes.get("format"), notes.get("version"), len(names))
            tensors = load(content)
            examples = [
                Example(name, {arm: tensors[arm][i].astype(np.float32) for arm in weights}, _bytes(picture))
                for i, (name, picture) in enumerate(zip(names, pictures, strict=True))
            ]
            return cls(_string(notes["model"]), _weights(weights), tuple(examples))
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CorrectionError(
                f"This is no memory, or it is damaged ({type(error).__name__}); choose a memory.safetensors."
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the file.

        Raises:
            OutputError: it cannot be written.
        """
        write_bytes(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Read the file.

        Raises:
            CorrectionError: it cannot be read, or as for `from_bytes`.
        """
        try:
            with Path(path).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise CorrectionError(
                f"The memory {quoted(path, 200)} cannot be read ({error.strerror}); check the path."
            ) from None
        return cls.from_bytes(content)

    def to_json(self) -> dict[str, Any]:
        """Plain types, for browsers: features as base64 of little-endian float16, thumbnails as base64."""
        return {
            "version": _VERSION,
            "model": self.model,
            "weights": dict(self.weights),
            "examples": [
                {
                    "name": e.name,
                    "thumbnail": _text(e.thumbnail),
                    "features": {arm: _text(f.astype("<f2").tobytes()) for arm, f in e.features.items()},
                }
                for e in self.examples
            ],
        }

    @classmethod
    def from_json(cls, content: Any) -> Memory:
        """Read `to_json`, from anybody.

        Raises:
            CorrectionError: as for `from_bytes`.
        """
        try:
            _check_form(_FORMAT, str(content["version"]), len(content["examples"]))
            examples = [
                Example(
                    one["name"],
                    {
                        arm: np.frombuffer(_bytes(code), dtype="<f2").astype(np.float32)
                        for arm, code in one["features"].items()
                    },
                    _bytes(one.get("thumbnail", "")),
                )
                for one in content["examples"]
            ]
            return cls(_string(content["model"]), _weights(content["weights"]), tuple(examples))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CorrectionError(
                f"This is no memory, or it is damaged ({type(error).__name__}); export it again."
            ) from None


def merged_memories(memories: Sequence[Memory]) -> Memory:
    """The examples of several memories of the same weights, one after the other.

    Raises:
        CorrectionError: they are of different models, or hold too many examples together.
    """
    first = memories[0]
    for other in memories[1:]:
        if dict(other.weights) != dict(first.weights):
            raise CorrectionError(f"A memory of {other._told()} cannot be joined to one of {first._told()}.")
    return first.adding(example for other in memories[1:] for example in other.examples)


def _check_form(kind: object, version: object, count: int) -> None:
    if kind != _FORMAT:
        raise CorrectionError("This is no memory of ovseg-demo; choose a memory.safetensors.")
    if version != str(_VERSION):
        raise CorrectionError(
            f"A memory of version {quoted(version)} cannot be read, only {_VERSION}; update this program."
        )
    if count > MAX_EXAMPLES:
        raise CorrectionError(
            f"A memory holds at most {MAX_EXAMPLES:,} examples and this one has {count:,}; remove some."
        )


def _notes(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file, whose head is its length in 8 bytes and JSON."""
    length = int.from_bytes(content[:8], "little")
    if not 0 < length <= len(content) - 8:
        raise ValueError("no head")
    notes = json.loads(content[8 : 8 + length])["__metadata__"]
    return {str(key): _string(value) for key, value in notes.items()}


def _weights(value: Any) -> dict[Arm, str]:
    if not isinstance(value, dict) or not value or len(value) > 16:
        raise ValueError("no arms")
    return {correction_name(arm): _string(digest)[:128] for arm, digest in value.items()}


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text is needed")
    return value


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(_string(text), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _listed(arms: Iterable[Arm]) -> str:
    return ", ".join(sorted(arms)) or "no arm"


__all__ = ["MAX_EXAMPLES", "Example", "Memory", "merged_memories"]
