"""Load any CLIP of open_clip with its own picture size, pixel values, context and temperature."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ovseg_demo.clip.checkpoints import PROMPTS, prompts_of
from ovseg_demo.clip.model import MaskAdaptedCLIP
from ovseg_demo.clip.towers import ClipImageTower, OpenClipImageTower, OpenClipTextTower
from ovseg_demo.clip.transformers_clip import open_clip_config, open_clip_weights
from ovseg_demo.errors import CheckpointError, DownloadError, ModelError, quoted
from ovseg_demo.files import file_sha256
from ovseg_demo.models import NotOnHubError, OpenClipName, fetch_current, parse_open_clip
from ovseg_demo.models.open_clip_names import CONFIGS
from ovseg_demo.models.unpinned import WEIGHTS
from ovseg_demo.packages import needs_transformers
from ovseg_demo.regions import CropRecipe
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    read_file,
    tensor_of,
    write_tensors,
)

_RECORD = "open_clip_config"
"""Name of the configuration in the header of a file of adapted weights."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_BUFFERS = (
    "position_ids",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
    "num_batches_tracked",
)


@dataclass
class OpenClipFiles:
    """The files of a model."""

    config: dict[str, Any]
    """open_clip's `model_cfg`."""
    weights: Path
    pixels: dict[str, Any] = field(default_factory=dict)
    """open_clip's `preprocess_cfg`, as far as it is known."""
    tokenizer: Path | None = None
    """Folder of a tokenizer's files; None for CLIP's own."""


def load_open_clip(name: str | Path, cache_dir: Path) -> MaskAdaptedCLIP:
    """Load a model by a name of `models.open_clip_names`; weights are fetched if need be.

    Raises:
        UnknownModelError: there is no such model.
        DownloadError: its files are not on this machine and cannot be fetched.
        CheckpointError: the weights are damaged or of another architecture.
        ModelError: it has a text tower that open_clip does not define itself.
    """
    wanted = parse_open_clip(name)
    files = find_files(wanted, cache_dir)
    return build(wanted.name, files)


# --- finding the files -----------------------------------------------------------------------------------


def find_files(wanted: OpenClipName, cache_dir: Path) -> OpenClipFiles:
    """The files of a model, fetched if they are not on this machine; raises as `load_open_clip`."""
    if wanted.folder is not None:
        return _in_folder(wanted.folder, wanted.name)
    if wanted.repository:
        return _in_repository(wanted.repository, wanted.name, cache_dir)
    config = open_clip.get_model_config(wanted.architecture)
    if wanted.file is not None:
        return OpenClipFiles(config, wanted.file, {}, _hub_tokenizer(config, wanted.name, cache_dir))
    listed = open_clip.pretrained.get_pretrained_cfg(wanted.architecture, wanted.tag)
    # Some weights were trained with another activation than the architecture's usual one.
    config["quick_gelu"] = bool(listed.get("quick_gelu", config.get("quick_gelu", False)))
    place = listed.get("hf_hub", "")
    if not place:
        raise DownloadError(
            f"{wanted.name} is not on the model hub; get {listed.get('url') or 'its weights'} and give "
            f"open_clip:{wanted.architecture}/FILE."
        )
    repository, _, file = place.rpartition("/")
    weights = _first(repository, (file,) if file else WEIGHTS, wanted.name, cache_dir)
    return OpenClipFiles(config, weights, listed, _hub_tokenizer(config, wanted.name, cache_dir))


def _in_folder(folder: Path, name: str) -> OpenClipFiles:
    config_file = next(folder / c for c in CONFIGS if (folder / c).is_file())
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise CheckpointError(f"The folder {quoted(folder, 200)} has no weights; {WEIGHTS[0]} is one name.")
    config, pixels = _read_config(config_file, name)
    tokenizer = folder if config["text_cfg"].get("hf_tokenizer_name") else None
    return OpenClipFiles(config, weights, pixels, tokenizer)


def _in_repository(repository: str, name: str, cache_dir: Path) -> OpenClipFiles:
    config_file = _first(repository, CONFIGS, name, cache_dir)
    config, pixels = _read_config(config_file, name)
    weights = _first(repository, WEIGHTS, name, cache_dir)
    return OpenClipFiles(config, weights, pixels, _hub_tokenizer(config, name, cache_dir, repository))


def _read_config(file: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        record = json.loads(file.read_text("utf-8"))
        if file.name == CONFIGS[1]:
            return open_clip_config(record, name), {}
        config = record.get("model_cfg", record)
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            raise KeyError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"The {file.name} of {name} is no configuration of open_clip.") from None
    return config, record.get("preprocess_cfg", {})


def _hub_tokenizer(config: Mapping[str, Any], name: str, cache_dir: Path, own: str = "") -> Path | None:
    """The folder of a tokenizer from the hub, None for CLIP's own."""
    repository = config["text_cfg"].get("hf_tokenizer_name", "")
    if not repository:
        return None
    for place in dict.fromkeys((own, repository)):
        if place:
            try:
                main = fetch_current(place, _TOKENIZER_FILES[0], name, cache_dir)
            except NotOnHubError:
                continue
            for file in _TOKENIZER_FILES[1:]:
                _optional(place, file, name, cache_dir)
            return main.parent
    raise DownloadError(
        f"The tokenizer {repository} of {name} is not on the model hub; choose another model."
    )


def _optional(repository: str, file: str, name: str, cache_dir: Path) -> Path | None:
    try:
        return fetch_current(repository, file, name, cache_dir)
    except NotOnHubError:
        return None


def _first(repository: str, files: tuple[str, ...], name: str, cache_dir: Path) -> Path:
    for file in files:
        if (path := _optional(repository, file, name, cache_dir)) is not None:
            return path
    raise NotOnHubError(
        f"The model hub has no repository {quoted(repository)} with {' or '.join(files[:2])}; check {name}."
    )


# --- building the model ----------------------------------------------------------------------------------


def build(name: str, files: OpenClipFiles) -> MaskAdaptedCLIP:
    """The model of a configuration with its weights; raises as `load_open_clip`."""
    model = empty_model(files.config, name)
    prompts = load_weights(model, files.weights)
    clip = wrap(model, files, name)
    if prompts is not None:
        tower = clip.image_tower
        if not isinstance(tower, ClipImageTower):
            raise CheckpointError(f"{file_label(files.weights)} has mask prompts for a tower without tokens.")
        width = int(tower.visual.positional_embedding.shape[1])
        tower.prompts = prompts_of(prompts, tower.grid**2, width, files.weights)
    return clip


def empty_model(config: Mapping[str, Any], name: str) -> nn.Module:
    """open_clip's model of a configuration, with random weights.

    Raises:
        ModelError: its text tower is of another library, or open_clip cannot build it.
    """
    own: dict[str, Any] = deepcopy(dict(config))
    if "hf_model_name" in own["text_cfg"]:
        raise ModelError(f"{name} has a text tower of another library; choose one with open_clip's own.")
    custom = own.pop("custom_text", False)
    own["vision_cfg"].pop("timm_model_pretrained", None)
    kind = CustomTextCLIP if custom else CLIP
    if "multimodal_cfg" in own:
        kind = open_clip.CoCa
    try:
        return cast(nn.Module, kind(**own).eval())
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"open_clip cannot build {name}: {why}.") from error


def load_weights(model: Any, path: Path) -> Tensor | None:
    """Put the weights of a file into a model; every tensor must fit.

    Returns:
        (depth, places, width) mask prompts, if the file has some.

    Raises:
        CheckpointError: the file is damaged or of another architecture.
    """
    entries = entries_of(read_file(path), path)
    weights = {key: tensor_of(entries, key, path) for key in entries if not _is_buffer(key)}
    check_finite(weights, path)
    if any(key.startswith("vision_model.") for key in weights):
        weights = open_clip_weights(weights)
    weights = cast(dict[str, Tensor], convert_state_dict(model, weights))
    if "positional_embedding" in weights and not hasattr(model, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)
    wanted = model.state_dict()
    for key in ("logit_scale", "logit_bias"):  # a number, or a list of one number
        if key in weights and key in wanted and weights[key].numel() == wanted[key].numel():
            weights[key] = weights[key].reshape(wanted[key].shape)
    prompts = weights.pop(PROMPTS, None)
    shapes = {key: value.shape for key, value in wanted.items() if not _is_buffer(key)}
    check_names_and_shapes(weights, shapes, f"{file_label(path)} is of another architecture")
    model.load_state_dict(weights, strict=False)
    return prompts


# --- adapted weights -------------------------------------------------------------------------------------


def write_open_clip(path: Path, clip: MaskAdaptedCLIP, *, score_scale: float) -> None:
    """Write a model that came from open_clip, with its configuration and mask prompts, in one file.

    Raises:
        ModelError: its tokeniser is not CLIP's own, so that the file would not say everything.
        OutputError: the file cannot be written.
    """
    text = cast(OpenClipTextTower, clip.text_tower)
    if text.record is None:
        raise ModelError(f"{clip.name} has a tokeniser of its own, without which it cannot be saved.")
    visual = cast(Any, clip.image_tower).visual
    weights = {f"visual.{key}": value for key, value in visual.state_dict().items()}
    weights |= {key: value for key, value in text.model.state_dict().items() if not _is_buffer(key)}
    weights["logit_scale"] = torch.full_like(weights["logit_scale"], math.log(score_scale))
    if clip.image_tower.prompts is not None:
        weights[PROMPTS] = clip.image_tower.prompts.mask_embedding.detach()
    write_tensors(path, weights, {_RECORD: json.dumps(text.record)})


def open_clip_record(path: Path) -> dict[str, Any] | None:
    """The configuration in a file of `write_open_clip`; None for any other file."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(_RECORD)
        return None if written is None else cast(dict[str, Any], json.loads(written))
    except (OSError, SafetensorError, ValueError):
        return None


def load_adapted(path: Path, record: Mapping[str, Any]) -> MaskAdaptedCLIP:
    """Read a file of `write_open_clip`; raises as `load_open_clip`."""
    return build(path.stem, OpenClipFiles(record["model_cfg"], path, record["preprocess_cfg"]))


def _is_buffer(key: str) -> bool:
    """Whether an entry follows from the architecture or is of use in training alone; files may lack it."""
    return key.rpartition(".")[2] in _BUFFERS


def wrap(model: Any, files: OpenClipFiles, name: str) -> MaskAdaptedCLIP:
    """The classifier of an open_clip model: crops, names and logits as it was trained with."""
    visual = model.visual
    scale = float(model.logit_scale.detach().exp())
    bias = getattr(model, "logit_bias", None)
    plain = isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok"
    tower = ClipImageTower(visual) if plain else OpenClipImageTower(visual)
    mean = files.pixels.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = files.pixels.get("std") or open_clip.OPENAI_DATASET_STD
    record = {"model_cfg": dict(files.config), "preprocess_cfg": {"mean": list(mean), "std": list(std)}}
    clip = MaskAdaptedCLIP(
        tower,
        OpenClipTextTower(model, tokenizer_of(files), record if files.tokenizer is None else None),
        embed_dim=int(files.config["embed_dim"]),
        crop_recipe=CropRecipe(
            size=tower.image_size,
            pixel_mean=tuple(255 * float(v) for v in mean),  # type: ignore[arg-type]
            pixel_std=tuple(255 * float(v) for v in std),  # type: ignore[arg-type]
        ),
        score_scale=scale,
        score_bias=0.0 if bias is None else float(bias.detach()),
        name=name,
    )
    clip.weights_files = {files.weights.name: file_sha256(files.weights)}
    clip.weights_sha256 = clip.weights_files[files.weights.name]
    clip.text_key = f"{clip.weights_sha256} {name}"
    return clip


def tokenizer_of(files: OpenClipFiles) -> Any:
    """Sentences to (n, context) token ids, as the model was trained with."""
    text = files.config["text_cfg"]
    context, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    if files.tokenizer is None:
        return open_clip.SimpleTokenizer(context_length=context, **options)
    try:
        with needs_transformers("The tokenizer of this model"):
            return HFTokenizer(
                str(files.tokenizer),
                context_length=context,
                tokenizer_mode=text.get("tokenizer_mode"),
                **options,
            )
    except (OSError, ValueError, ImportError) as error:
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"The tokenizer in {quoted(files.tokenizer, 200)} cannot be read: {why}.") from error


__all__ = ["OpenClipFiles", "build", "find_files", "load_open_clip"]
