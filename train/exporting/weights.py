"""Write the weights of one arm in the layout that the demo loads, and read what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.checkpoints import write_checkpoint
from ovseg_demo.clip.context import ContextHead
from ovseg_demo.clip.context_arm import HEAD_PREFIX, TEXT_MAP
from ovseg_demo.clip.mini import KNOWN_NAMES, MiniImageTower, config_record
from ovseg_demo.clip.minilm import MiniTextTower, map_digests
from ovseg_demo.clip.name_bank import BANK_PREFIX, NameBank, bank_entries
from ovseg_demo.clip.open_clip_loading import write_open_clip
from ovseg_demo.clip.text import TEMPLATES, encode_names
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower, OpenClipTextTower
from ovseg_demo.errors import CheckpointError
from ovseg_demo.files import file_sha256
from ovseg_demo.merging.published_rules import OTHERS
from ovseg_demo.result import Arm
from ovseg_demo.vocabulary import PRESETS, Vocabulary
from train.core.files import write_bytes, write_tensors, write_text


def save_mini(
    folder: Path,
    tower: MiniImageTower,
    text_projection: Tensor,
    arm: Arm,
    *,
    score_scale: float = 30.0,
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
    write_tensors(path, half)
    config = read_config(folder)
    config |= {"architecture": "ovseg-mini", **config_record(tower.config)}
    config.setdefault("score_scale", {})[arm] = round(score_scale, 3)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_hashes(folder)
    return path


def save_context(
    folder: Path, head: ContextHead, text_map: Tensor, *, weight: float, score_scale: float
) -> Path:
    """Write the context arm beside the adapted one that it belongs to.

    Args:
        folder: has `adapted.safetensors` and `config.json`.
        head: what reads crops and photo.
        text_map: (384, 384) the head's own map of sentence vectors.
        weight: what the head counts against the adapted arm, 0..1.
        score_scale: what a cosine of the head is multiplied with.

    Returns:
        The path of `context.safetensors`, in float16.
    """
    tensors = {f"{HEAD_PREFIX}{name}": value for name, value in head.state_dict().items()}
    tensors[TEXT_MAP] = text_map
    path = folder / "context.safetensors"
    write_tensors(path, {name: t.detach().to(torch.float16).contiguous() for name, t in tensors.items()})
    config = read_config(folder)
    config["context"] = {**asdict(head.config), "weight": round(weight, 4)}
    config.setdefault("score_scale", {})[path.stem] = round(score_scale, 3)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_hashes(folder)
    return path


def save_bank(folder: Path, bank: NameBank) -> Path:
    """Write a bank of names into the context arm that has seen its regions; an earlier bank goes.

    Args:
        folder: has `context.safetensors` and the `adapted.safetensors` that it belongs to.
        bank: known regions as that arm sees them.

    Returns:
        The path of `context.safetensors`.

    Raises:
        CheckpointError: there is no context arm.
    """
    path = folder / "context.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {path.name}, whose head a bank of names belongs to.")
    head = {key: value for key, value in load_file(path).items() if not key.startswith(BANK_PREFIX)}
    tensors, notes = bank_entries(bank, file_sha256(folder / "adapted.safetensors"))
    write_tensors(path, head | tensors, notes)
    write_hashes(folder)
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a folder holds, nothing if there is none yet."""
    path = folder / "config.json"
    return cast(dict[str, Any], json.loads(path.read_text("utf-8"))) if path.exists() else {}


def write_hashes(folder: Path) -> None:
    """`SHA256SUMS` of the weights in a folder, in the format that sha256sum checks."""
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.safetensors"))]
    write_text(folder / "SHA256SUMS", "".join(lines))


def read_hashes(folder: Path) -> dict[str, str]:
    """What `SHA256SUMS` of a folder says, by file name."""
    rows = (line.split(maxsplit=1) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())
    return {name: digest for digest, name in rows}


def preset_names() -> list[str]:
    """Every name of a preset, and the one that stands for all others."""
    return sorted({word for key in PRESETS for word in Vocabulary.preset(key).prompts} | {OTHERS})


def save_known_names(
    folder: Path,
    *clips: MaskAdaptedCLIP,
    templates: Literal["vild", "single"] = "vild",
    names: Sequence[str] = (),
) -> Path:
    """Keep the features of names beside the weights of an ovseg-mini.

    Args:
        folder: of the weights.
        clips: its arms; features are written once for each text map among them.
        templates: sentences around a name.
        names: those of `preset_names` by default.

    Returns:
        The file.
    """
    names = list(names) or preset_names()
    filled = [template.format(name) for name in names for template in TEMPLATES[templates]]
    rows = {sentence: row for row, sentence in enumerate(filled)}
    # The arms differ in their text maps only: each sentence is read once.
    vectors = MiniTextTower().sentence_vectors(filled)
    features: dict[str, Tensor] = {}
    for clip in clips:
        text = cast(MiniTextTower, clip.text_tower)
        keys = [f"{templates}.{digest}" for digest in map_digests(text, clip.text_parts)]
        if not features.keys() >= set(keys):

            def tower(sentences: Sequence[str], text: MiniTextTower = text) -> Tensor:
                return text.project(vectors[[rows[sentence] for sentence in sentences]])

            with torch.no_grad():
                encoded = encode_names(tower, names, TEMPLATES[templates], clip.text_parts)
            parts = encoded.split(list(clip.text_parts), dim=1)
            for key, part in zip(keys, parts, strict=True):
                features[key] = functional.normalize(part, dim=-1).half().contiguous()
    path = folder / KNOWN_NAMES
    write_tensors(path, features, {"names": json.dumps(names)})
    write_hashes(folder)
    return path


def save_adapted(folder: Path, clip: MaskAdaptedCLIP, *, score_scale: float) -> Path:
    """Write an adapted model in the layout of its kind: ovseg-mini's, or a CLIP with mask prompts."""
    image, text = clip.image_tower, clip.text_tower
    if isinstance(image, MiniImageTower) and isinstance(text, MiniTextTower):
        return save_mini(folder, image, text.projection.weight, "adapted", score_scale=score_scale)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adapted.safetensors"
    if isinstance(text, OpenClipTextTower):
        write_open_clip(path, clip, score_scale=score_scale)
        return path
    write_checkpoint(path, cast(ClipImageTower, image), cast(ClipTextTower, text))
    return path


def arm_file(weights: Path, arm: Arm = "adapted") -> Path:
    """The file of some weights: itself, or an arm's in a folder.

    Raises:
        CheckpointError: it is not there.
    """
    path = weights / f"{arm}.safetensors" if weights.is_dir() else weights
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give a checkpoint, or the folder of a finished run.")
    return path


def copy_context(start: Path | None, out: Path) -> None:
    """Copy the context arm that lies beside the weights a run began with, if there is one.

    Args:
        start: a checkpoint file or the folder of a run; None = there is nothing to copy.
        out: the folder of the run's own adapted weights.
    """
    if start is None:
        return
    source = start if start.is_dir() else start.parent
    path = source / "context.safetensors"
    if not path.is_file():
        return
    theirs, config = read_config(source), read_config(out)
    config["context"] = theirs["context"]
    config["score_scale"][path.stem] = theirs["score_scale"][path.stem]
    write_bytes(out / path.name, path.read_bytes())
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    write_hashes(out)
