"""Write trained weights in the layout that the demo loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.checkpoints import write_checkpoint
from ovseg_demo.clip.mini import (
    KNOWN_NAMES,
    MiniImageTower,
    MiniShape,
    shape_record,
)
from ovseg_demo.clip.minilm import MiniTextTower, text_digest
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower
from ovseg_demo.published_rules import OTHERS
from ovseg_demo.vocabulary import PRESETS, Vocabulary


def save_mini(
    folder: Path,
    tower: MiniImageTower,
    text_projection: Tensor,
    arm: Literal["vanilla", "adapted"],
    *,
    score_scale: float = 30.0,
    shape: MiniShape | None = None,
) -> Path:
    """Write one arm of ovseg-mini, `<arm>.safetensors` in float16 and `config.json` beside it.

    Returns:
        The path of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    tensors["text.projection.weight"] = text_projection
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in tensors.items()}
    path = folder / f"{arm}.safetensors"
    save_file(half, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    config = read_config(folder)
    config |= {"architecture": "ovseg-mini", **shape_record(shape or MiniShape())}
    config.setdefault("score_scale", {})[arm] = round(score_scale, 3)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_hashes(folder)
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a folder holds, nothing if there is none yet."""
    path = folder / "config.json"
    return cast(dict[str, Any], json.loads(path.read_text("utf-8"))) if path.exists() else {}


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def write_hashes(folder: Path) -> None:
    """`SHA256SUMS` of the weights in a folder, in the format that sha256sum checks."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.safetensors"))
    ]
    write_text(folder / "SHA256SUMS", "".join(lines))


def save_known_names(
    folder: Path, clip: MaskAdaptedCLIP, templates: Literal["vild", "single"] = "vild"
) -> None:
    """Keep the features of every preset's names beside the weights of an ovseg-mini."""
    names = sorted({word for key in PRESETS for word in Vocabulary.preset(key).prompts} | {OTHERS})
    features = {templates: clip.encode_text(names, templates).half().contiguous()}
    notes = {"names": json.dumps(names), "text_tower": text_digest(cast(MiniTextTower, clip.text_tower))}
    path = folder / KNOWN_NAMES
    save_file(features, path.with_suffix(".part"), metadata=notes)
    path.with_suffix(".part").replace(path)
    write_hashes(folder)


def save_adapted(folder: Path, clip: MaskAdaptedCLIP, *, score_scale: float) -> Path:
    """Write an adapted model in the layout of its kind: ovseg-mini's, or a CLIP with mask prompts."""
    image, text = clip.image_tower, clip.text_tower
    if isinstance(image, MiniImageTower) and isinstance(text, MiniTextTower):
        weight = text.projection.weight
        shape = MiniShape(width=image.proj.shape[0], layers=len(image.blocks), embed_dim=image.proj.shape[1])
        return save_mini(folder, image, weight, "adapted", score_scale=score_scale, shape=shape)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adapted.safetensors"
    write_checkpoint(path, cast(ClipImageTower, image), cast(ClipTextTower, text))
    return path
