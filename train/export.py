"""Write trained weights in the layout that the demo loads, and bring them to other people.

    python -m train.export --weights runs/prompt_tune --out exported --metrics msrc21.json
    python -m train.export --weights exported --out ovseg_clip.pt --form ovseg
    python -m train.export --weights ovseg_clip.pt --out exported --push-to-hub me/my-clip

The layout: `adapted.safetensors` (and `vanilla.safetensors`), `config.json`, a model card, `SHA256SUMS`.
Other forms are one file: "openai" is OpenAI's flat dictionary with the mask prompts as
`visual.mask_embedding`, "ovseg" the published OVSeg training checkpoint, the same names behind "module.";
"full" is a complete OVSeg file with its CLIP replaced by this one (`exporting/full_checkpoint.py`).
Every number stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ovseg_demo.clip import MaskAdaptedCLIP, load_clip
from ovseg_demo.clip.checkpoints import (
    PROMPTS,
    ClipConfig,
    build_clip,
    read_checkpoint,
    read_entries,
    write_checkpoint,
    write_entries,
)
from ovseg_demo.clip.mini import (
    KNOWN_NAMES,
    MiniImageTower,
    config_record,
    read_known_names,
)
from ovseg_demo.clip.minilm import MiniTextTower, text_digest
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower
from ovseg_demo.errors import CheckpointError, OutputError, SettingsError
from ovseg_demo.models import MODELS, resolve
from ovseg_demo.published_rules import OTHERS
from ovseg_demo.vocabulary import PRESETS, Vocabulary
from train.core.files import write_saved, write_tensors, write_text
from train.core.options import run_command
from train.core.run_record import RECORD, chain, read_record
from train.exporting.card import CardFacts, model_card, read_reports
from train.exporting.full_checkpoint import put_clip


def save_mini(
    folder: Path,
    tower: MiniImageTower,
    text_projection: Tensor,
    arm: Literal["vanilla", "adapted"],
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


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` of a folder holds, nothing if there is none yet."""
    path = folder / "config.json"
    return cast(dict[str, Any], json.loads(path.read_text("utf-8"))) if path.exists() else {}


def write_hashes(folder: Path) -> None:
    """`SHA256SUMS` of the weights in a folder, in the format that sha256sum checks."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.safetensors"))
    ]
    write_text(folder / "SHA256SUMS", "".join(lines))


def read_hashes(folder: Path) -> dict[str, str]:
    """What `SHA256SUMS` of a folder says, by file name."""
    rows = (line.split(maxsplit=1) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())
    return {name: digest for digest, name in rows}


def save_known_names(
    folder: Path, clip: MaskAdaptedCLIP, templates: Literal["vild", "single"] = "vild"
) -> None:
    """Keep the features of every preset's names beside the weights of an ovseg-mini."""
    names = sorted({word for key in PRESETS for word in Vocabulary.preset(key).prompts} | {OTHERS})
    features: dict[str, Tensor] = {templates: clip.encode_text(names, templates).half().contiguous()}
    notes = {"names": json.dumps(names), "text_tower": text_digest(cast(MiniTextTower, clip.text_tower))}
    path = folder / KNOWN_NAMES
    write_tensors(path, features, notes)
    write_hashes(folder)


def save_adapted(folder: Path, clip: MaskAdaptedCLIP, *, score_scale: float) -> Path:
    """Write an adapted model in the layout of its kind: ovseg-mini's, or a CLIP with mask prompts."""
    image, text = clip.image_tower, clip.text_tower
    if isinstance(image, MiniImageTower) and isinstance(text, MiniTextTower):
        return save_mini(folder, image, text.projection.weight, "adapted", score_scale=score_scale)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adapted.safetensors"
    write_checkpoint(path, cast(ClipImageTower, image), cast(ClipTextTower, text))
    return path


# --- the command ------------------------------------------------------------------------------------------

LICENCE = (
    "Weights for research and education, non-commercial: the photos they were trained on belong to their "
    "owners, and the terms of the data sets and of the vanilla weights apply."
)


@dataclass(frozen=True)
class ExportSettings:
    """Export adapted weights: a folder for the demo, or one file in a published form."""

    weights: Path
    """Adapted weights: a checkpoint file, or the folder of a run."""
    out: Path
    """Folder to write; a file for the other forms."""
    form: Literal["demo", "openai", "ovseg", "full"] = "demo"
    """The demo's folder; OpenAI's flat dictionary; OVSeg's training checkpoint; the complete OVSeg file that
    --into names, with this CLIP in it."""
    into: Path | None = None
    """Complete OVSeg file that gives the segmenter (form full)."""
    with_vanilla: bool = True
    """Also put in the vanilla weights, so that the two can be compared (folder only)."""
    model: str = ""
    """The vanilla model; by default the one that the run began with."""
    metrics: tuple[Path, ...] = ()
    """JSON files of train.evaluate, for the card."""
    title: str = ""
    """Title of the card; by default the folder's name."""
    licence: str = LICENCE
    """What the card says of the licence."""
    push_to_hub: str = ""
    """Repository of the model hub that the folder is uploaded to (OWNER/NAME)."""
    private: bool = False
    """Make that repository private if it is new."""

    def __post_init__(self) -> None:
        if self.push_to_hub and self.form != "demo":
            raise SettingsError(f"--push-to-hub uploads the demo's folder: leave out --form {self.form}.")
        if (self.form == "full") != (self.into is not None):
            raise SettingsError("--form full and --into FILE, the complete OVSeg file, belong together.")
        if self.push_to_hub and self.push_to_hub.count("/") != 1:
            raise SettingsError(f"--push-to-hub needs OWNER/NAME, not {self.push_to_hub!r}.")


def export(settings: ExportSettings) -> None:
    """Write the folder or the file, and upload it if asked."""
    if settings.into is not None:
        put_clip(vit_entries(arm_file(settings.weights)), settings.into, settings.out)
        print(f"Wrote {settings.out}: --model {settings.out} --proposer maskformer")
        return
    if settings.form in ("openai", "ovseg"):
        write_published(settings.weights, settings.out, settings.form)
        print(f"Wrote {settings.out}")
        return
    write_folder(settings)
    print(f"Wrote {settings.out}: python -m ovseg_demo segment PHOTO --model {settings.out} ...")
    if settings.push_to_hub:
        print(f"Uploaded to {push(settings.out, settings.push_to_hub, private=settings.private)}")


def arm_file(weights: Path, arm: Literal["vanilla", "adapted"] = "adapted") -> Path:
    """The file of some weights: itself, or an arm's in a folder.

    Raises:
        CheckpointError: it is not there.
    """
    path = weights / f"{arm}.safetensors" if weights.is_dir() else weights
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give a checkpoint, or the folder of a finished run.")
    return path


def write_published(weights: Path, out: Path, form: Literal["openai", "ovseg"]) -> None:
    """Write a CLIP in a published form, every number with the type it has.

    Raises:
        CheckpointError: the weights are no CLIP vision transformer.
        OutputError: the file cannot be written.
    """
    entries = vit_entries(arm_file(weights))
    content: dict[str, Any] = entries
    if form == "ovseg":
        named = {f"module.{key}": value for key, value in entries.items()}
        content = {"epoch": 0, "name": arm_file(weights).stem, "state_dict": named}
    write_saved(out, content)


def vit_entries(path: Path) -> dict[str, Tensor]:
    """The entries of a CLIP vision transformer as they are stored, checked to be a whole one.

    Raises:
        CheckpointError: they are something else.
    """
    if (path.parent / "config.json").is_file() and read_config(path.parent).get(
        "architecture"
    ) == "ovseg-mini":
        raise CheckpointError(f"{path} is an ovseg-mini, which no published form can hold: use --form demo.")
    build_clip(read_checkpoint(path), source=path)
    return read_entries(path)


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
    runs = chain(record)
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
    config |= {"score_scale": scales}
    config.pop("calibration", None)
    if calibration:
        config["calibration"] = calibration
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    if vanilla is not None and read_known_names(
        vanilla.parent / KNOWN_NAMES, cast(MiniTextTower, clip.text_tower)
    ):
        _copy(vanilla.parent / KNOWN_NAMES, out / KNOWN_NAMES)


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
    temporary = target.with_name(target.name + ".part")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder to the model hub; returns its address. The token is huggingface_hub's own.

    Raises:
        OutputError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Mask-adapted CLIP",
            ignore_patterns=["*.part", "state.pt", "tensorboard/*", "stems_*"],
        )
    except LocalTokenNotFoundError as error:
        raise OutputError("The hub asks who you are: run `hf auth login`, or set HF_TOKEN.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(f"{folder} could not be uploaded to {repository}: {reason}") from error
    return str(address)


if __name__ == "__main__":
    run_command(export, ExportSettings, prog="train.export")
