"""The limits and defaults of the app, in one place.

Every number that a request is held to is a field here; page, API and command line read the same object.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ovseg_demo.errors import SettingsError, quoted

__all__ = ["ENVIRONMENT_PREFIX", "MERGE_RULES", "TEMPLATE_SETS", "Settings", "default_cache_dir"]

ENVIRONMENT_PREFIX = "OVSEG_"
TEMPLATE_SETS = ("vild", "imagenet", "single")
MERGE_RULES = ("default", "published-demo", "benchmark")

# Above this Pillow itself refuses to open a picture, whatever we allow.
_PILLOW_MAX_PIXELS = 178_956_970
# Label and region maps are 16-bit with 0 kept for "none".
_UINT16_MAX = 65_535


def default_cache_dir() -> Path:
    """The folder for downloaded weights and cached results: OVSEG_CACHE_DIR, or by the platform's custom.

    A machine without a home directory gets a folder among its temporary files.

    Raises:
        SettingsError: the variable begins with the home of somebody who has none.
    """
    if chosen := os.environ.get(f"{ENVIRONMENT_PREFIX}CACHE_DIR", "").strip():
        return _expanded(Path(chosen))
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        base = Path(tempfile.gettempdir())
    return base / "ovseg-demo"


@dataclass(frozen=True)
class Settings:
    """Limits and defaults; each field can be set as `OVSEG_<FIELD>` in the environment.

    Raises:
        SettingsError: a value is outside its range; the message names the field.
    """

    max_pixels: int = 50_000_000
    """Pixels of the largest picture that is decoded; checked before decoding."""

    max_file_bytes: int = 50_000_000
    """Bytes of the largest picture file, and of one upload."""

    max_side_px: int = 1024
    """Longer side, in pixels, at which proposals and crops are made; smaller pictures keep their size."""

    max_names: int = 1000
    """Names in one vocabulary, synonyms included."""

    max_name_length: int = 100
    """Characters in one name."""

    max_regions: int = 100
    """Proposals that are kept for one picture, the best-supported first."""

    max_photos: int = 50
    """Photos in one batch."""

    max_batch_bytes: int = 500_000_000
    """Bytes of one batch upload, after unpacking."""

    max_request_bytes: int = 1_000_000
    """Bytes of one request that is no upload: words, choices, the names of uploaded files."""

    timeout_s: float = 300.0
    """Seconds after which a request is stopped with a message."""

    max_queue: int = 32
    """Requests that may wait; the next one is told that the demo is busy."""

    state_lifetime_s: float = 3600.0
    """Seconds after which what is kept for a visitor (uploads, embeddings, results) is deleted."""

    max_visitors: int = 256
    """Results and sessions that are kept at the same time; the one that was not used longest makes room."""

    max_kept_bytes: int = 1_000_000_000
    """Bytes of memory for the visitors' last results together; those that were not used longest make room."""

    max_analysed_bytes: int = 500_000_000
    """Bytes of memory for analysed photos together; the one that was not used longest makes room."""

    max_stored_bytes: int = 5_000_000_000
    """Bytes of disk for uploads and files made of results together; beyond, uploads are refused."""

    operator_token: str = field(default="", repr=False)
    """Shown as a bearer token, it opens /counters; without one, that page answers this machine only."""

    model: str = "ovseg-mini"
    """Name of the CLIP in the model table, or a path to a checkpoint."""

    proposer: str = "mobile-sam"
    """Name of the mask proposer in the model table."""

    templates: str = "vild"
    """Sentences a name is put into before it is embedded: vild, imagenet or single."""

    merge: str = "default"
    """How regions become a label map: default, published-demo or benchmark."""

    ensemble: float = 0.0
    """Share of CLIP, 0 to 1, beside a proposer that names its own masks (maskformer); 0 = CLIP alone."""

    mask_threshold: float = 0.35
    """A pixel belongs to one of maskformer's soft masks above this, 0 to 1."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:<number> or mps."""

    cache_dir: Path = field(default_factory=default_cache_dir)
    """Folder for downloaded weights and cached results."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache_dir", _expanded(Path(self.cache_dir)))
        _check_range("max_pixels", self.max_pixels, 1, _PILLOW_MAX_PIXELS)
        _check_range("max_file_bytes", self.max_file_bytes, 1, None)
        _check_range("max_side_px", self.max_side_px, 32, 8192)
        _check_range("max_names", self.max_names, 1, _UINT16_MAX)
        _check_range("max_name_length", self.max_name_length, 1, 10_000)
        _check_range("max_regions", self.max_regions, 1, _UINT16_MAX)
        _check_range("max_photos", self.max_photos, 1, None)
        _check_range("max_batch_bytes", self.max_batch_bytes, 1, None)
        _check_range("max_request_bytes", self.max_request_bytes, 1, None)
        _check_range("timeout_s", self.timeout_s, 1, None)
        _check_range("max_queue", self.max_queue, 1, None)
        _check_range("state_lifetime_s", self.state_lifetime_s, 1, None)
        _check_range("ensemble", self.ensemble, 0, 1)
        _check_range("mask_threshold", self.mask_threshold, 0, 1)
        _check_range("max_visitors", self.max_visitors, 1, None)
        _check_range("max_kept_bytes", self.max_kept_bytes, 1, None)
        _check_range("max_analysed_bytes", self.max_analysed_bytes, 1, None)
        _check_range("max_stored_bytes", self.max_stored_bytes, 1, None)
        _check_choice("templates", self.templates, TEMPLATE_SETS)
        _check_choice("merge", self.merge, MERGE_RULES)
        for name in ("model", "proposer"):
            if not getattr(self, name).strip():
                raise SettingsError(f"{name} is empty; give the name of a model.")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise SettingsError(
                f"device is {quoted(self.device)}; use auto, cpu, mps, cuda or cuda:<number>."
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """The settings with every `OVSEG_<FIELD>` of `environ` applied; empty values count as unset.

        >>> Settings.from_environment({"OVSEG_MAX_NAMES": "20"}).max_names
        20

        Raises:
            SettingsError: a value is no number where one is needed, or is outside its range.
        """
        changes: dict[str, int | float | str | Path] = {}
        for item in fields(cls):
            variable = ENVIRONMENT_PREFIX + item.name.upper()
            text = environ.get(variable, "").strip()
            if text:
                changes[item.name] = _parse(variable, text, str(item.type))
        return cls(**changes)  # type: ignore[arg-type]


def _parse(variable: str, text: str, kind: str) -> int | float | str | Path:
    if kind == "Path":
        return Path(text)
    if kind == "str":
        return text
    try:
        return int(text.replace("_", "")) if kind == "int" else float(text)
    except ValueError:
        wanted = "a whole number" if kind == "int" else "a number"
        raise SettingsError(f"{variable} is {quoted(text)}, but it must be {wanted}.") from None


def _expanded(folder: Path) -> Path:
    """With a home in the place of `~`."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise SettingsError(f"cache_dir is {quoted(folder)}; there is no such home.") from None


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if not value >= low:  # not "value < low", which NaN passes
        raise SettingsError(f"{name} is {value:,}, but it must be at least {low:,}.")
    if high is not None and value > high:
        raise SettingsError(f"{name} is {value:,}, but it must be at most {high:,}.")
    if math.isinf(value):
        raise SettingsError(f"{name} is {value:,}, but it must be finite: give a large number.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name} is {quoted(value)}; choose one of {', '.join(choices)}.")
