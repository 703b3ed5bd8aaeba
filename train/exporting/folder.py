"""The demo's folder: weights of both arms, config.json, a model card, SHA256SUMS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.checkpoints import PROMPTS, ClipConfig, write_entries
from ovseg_demo.clip.mini import KNOWN_NAMES, MiniImageTower, read_known_names
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.errors import OutputError
from ovseg_demo.files import atomic_file
from ovseg_demo.models import MODELS, resolve
from train.core.files import write_text
from train.core.run_record import RECORD, read_record, run_history
from train.exporting.card import CardFacts, model_card, read_reports
from train.exporting.published_forms import vit_entries
from train.exporting.settings import ExportSettings
from train.exporting.weights import arm_file, read_config, read_hashes, write_hashes


def write_folder(settings: ExportSettings) -> None:
    """The demo's layout: weights, config.json, README.md, SHA256SUMS.

    Raises:
        CheckpointError: the weights are none that the demo loads.
        OutputError: the folder cannot be written.
    """
    source, out = arm_file(settings.weights), settings.out
    reports = read_reports(settings.metrics)
    record = read_record(source)
    clip = load_clip(source)
    vanilla = _vanilla_file(settings, record) if settings.with_vanilla else None
    try:
        out.mkdir(parents=True, exist_ok=True)
        if isinstance(clip.image_tower, MiniImageTower):
            _copy_mini(source, vanilla, out, clip)
        else:
            _copy_vit(source, vanilla, out)
        if record:
            write_text(out / RECORD, json.dumps(record, indent=1) + "\n")
        write_hashes(out)
        hashes = read_hashes(out)
        title = settings.title or out.resolve().name
        facts = CardFacts(title, _kind(clip), hashes, record, reports, settings.licence)
        write_text(out / "README.md", model_card(facts))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from error
    load_clip(out)  # what the demo will do


def _kind(clip: MaskAdaptedCLIP) -> str:
    tower = clip.image_tower
    family = "Compact CLIP (ovseg-mini)" if isinstance(tower, MiniImageTower) else "CLIP vision transformer"
    millions = sum(p.numel() for p in cast(torch.nn.Module, tower).parameters()) / 1e6
    prompts = f"mask prompts of depth {tower.prompts.depth}" if tower.prompts else "no mask prompts"
    tokens = f"{tower.image_size} px, {tower.grid} x {tower.grid} tokens"
    return f"{family}, {tokens}, {millions:.1f} million parameters, {prompts}."


def _vanilla_file(settings: ExportSettings, record: dict[str, Any] | None) -> Path | None:
    """The vanilla weights that belong to the adapted ones, if it is known which."""
    runs = run_history(record)
    name = settings.model or (runs[0]["model"] if runs else "")
    if not name:
        return None
    if name not in MODELS and Path(name).is_dir():
        return arm_file(Path(name), "vanilla")
    return resolve(name, "vanilla").path


def _copy_mini(source: Path, vanilla: Path | None, out: Path, clip: MaskAdaptedCLIP) -> None:
    config = read_config(source.parent)
    scales = {"adapted": config["score_scale"][source.stem]}
    calibration = {"adapted": config["calibration"][source.stem]} if _calibrated(config, source.stem) else {}
    _copy(source, out / "adapted.safetensors")
    if vanilla is not None:
        theirs = read_config(vanilla.parent)
        scales["vanilla"] = theirs["score_scale"][vanilla.stem]
        if _calibrated(theirs, vanilla.stem):
            calibration["vanilla"] = theirs["calibration"][vanilla.stem]
        _copy(vanilla, out / "vanilla.safetensors")
    context = source.with_name("context.safetensors")
    if context.is_file():
        scales["context"] = config["score_scale"][context.stem]
        if _calibrated(config, context.stem):
            calibration["context"] = config["calibration"][context.stem]
        _copy(context, out / context.name)
    else:
        config.pop("context", None)
    config |= {"score_scale": scales}
    config.pop("calibration", None)
    if calibration:
        config["calibration"] = calibration
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    for place in (source, vanilla):
        names = place and place.with_name(KNOWN_NAMES)
        if names and read_known_names(names, cast(MiniTextTower, clip.text_tower)):
            _copy(names, out / KNOWN_NAMES)
            break


def _calibrated(config: Mapping[str, Any], arm: str) -> bool:
    return arm in config.get("calibration", {})


def _copy_vit(source: Path, vanilla: Path | None, out: Path) -> None:
    entries = vit_entries(source)
    write_entries(out / "adapted.safetensors", entries)
    if vanilla is not None:
        plain = {key: value for key, value in vit_entries(vanilla).items() if key != PROMPTS}
        write_entries(out / "vanilla.safetensors", plain)
    shape = ClipConfig.of(entries, source)
    depth = len(entries[PROMPTS]) if PROMPTS in entries else 0
    config = {"architecture": "clip-vit", **asdict(shape), "prompt_depth": depth, "score_scale": 100.0}
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")


def _copy(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
