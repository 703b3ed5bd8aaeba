"""Load a CLIP by a name of the model table or by the path of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ovseg_demo.clip.checkpoints import build_clip, read_checkpoint
from ovseg_demo.clip.model import MaskAdaptedCLIP
from ovseg_demo.clip.pooled_arm import PooledCLIP
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower
from ovseg_demo.errors import CheckpointError, ModelError, quoted
from ovseg_demo.files import file_sha256
from ovseg_demo.models import (
    ARMS,
    MODELS,
    arms_of,
    chosen_arms,
    exists,
    is_mini,
    is_open_clip,
    own_arms,
    resolve,
)
from ovseg_demo.result import Arm
from ovseg_demo.settings import default_cache_dir

__all__ = ["load_clip"]


def load_clip(
    name_or_path: str | Path,
    *,
    weights: Arm | None = None,
    device: str | torch.device = "cpu",
    cache_dir: Path | None = None,
) -> MaskAdaptedCLIP:
    """Load a model of the table by its name, or any known checkpoint file by its path.

    Args:
        name_or_path: a name such as "ovseg-mini", an existing file in one of the forms `checkpoints` reads,
            a folder that training wrote, with a file for each arm, or a name of
            `ovseg_demo.models.open_clip_names`.
        weights: which arm, one of `ovseg_demo.models.ARMS`; the model's best by default. A file holds one arm
            only; for it "vanilla" means that its mask prompts are left out, which is the vanilla arm if
            nothing but prompts was trained, and "no-prompts" means the same under its right name.
        device: where to put the model.
        cache_dir: where downloads are kept; by default `settings.default_cache_dir()`.

    Returns:
        The model, ready for use (not for training).

    Raises:
        UnknownModelError: neither a file nor a name in the table.
        ModelError: the model has no such arm.
        DownloadError: the weights are not on this machine and cannot be fetched.
        CheckpointError: the file is damaged or not a CLIP this loader knows.
    """
    path, files = Path(name_or_path), dict[str, str]()
    arm = ARMS[chosen_arms([weights] if weights else [], name_or_path)[0]]
    pooled = bool(arm.otherwise) and arm.name not in own_arms(name_or_path) and not is_mini(path)
    # A name of the table means the table, even where a file or folder happens to be called the same.
    outside = is_open_clip(name_or_path) and str(name_or_path) not in MODELS
    if outside:
        if arm.name not in arms_of(name_or_path):
            lacks = f"has no {arm.name} arm, only {_listed(arms_of(name_or_path))}."
            raise ModelError(f"{name_or_path} {lacks}", public=f"This model {lacks}")
    elif str(name_or_path) in MODELS or not exists(path):
        for name in (arm.name,) if pooled else (*arm.needs, arm.name):
            found = resolve(name_or_path, name, cache_dir=cache_dir)
            path, files[found.path.name] = found.path, found.sha256
    elif path.is_dir():
        path = _arm_in(path, arm.otherwise if pooled else arm.file)
    elif arm.name not in arms_of(path) and arm.file not in arms_of(path):
        raise ModelError(f"{path} is one set of weights and has no {arm.name} arm; give that file itself.")
    model = _open_clip(name_or_path, cache_dir) if outside else _load_file(path)
    if not arm.prompts or pooled:
        cast(Any, model.image_tower).prompts = None
    needs = () if pooled else arm.needs
    model.name = model.name or (str(name_or_path) if str(name_or_path) in MODELS else path.stem)
    if not outside:
        beside = [path.with_name(f"{n}{path.suffix}") for n in needs]
        model.weights_files = files or {one.name: file_sha256(one) for one in (*beside, path)}
        model.weights_sha256 = model.weights_files[path.name]
    model.text_key = model.text_key or model.weights_sha256
    if pooled:
        model = PooledCLIP(model)
    model.to(device)
    model.eval()
    return model


def _open_clip(name: str | Path, cache_dir: Path | None) -> MaskAdaptedCLIP:
    from ovseg_demo.clip.open_clip_loading import load_open_clip

    return load_open_clip(name, default_cache_dir() if cache_dir is None else cache_dir)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _load_file(path: Path) -> MaskAdaptedCLIP:
    if not is_mini(path):
        from ovseg_demo.clip.open_clip_loading import load_adapted, open_clip_record

        if (record := open_clip_record(path)) is not None:
            return load_adapted(path, record)
        clip, prompts = build_clip(read_checkpoint(path), source=path)
        embed_dim = int(clip.text_projection.shape[1])
        tower = ClipImageTower(clip.visual, prompts)
        return MaskAdaptedCLIP(tower, ClipTextTower(clip), embed_dim=embed_dim)
    from ovseg_demo.clip.context_arm import is_context_file, load_context
    from ovseg_demo.clip.mini import load_mini

    return load_context(path) if is_context_file(path) else load_mini(path)


def _arm_in(folder: Path, weights: Arm) -> Path:
    """The file of an arm in a folder that training wrote.

    Raises:
        CheckpointError: it is not there.
    """
    path = folder / f"{weights}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"The folder {quoted(folder, 200)} has no {path.name}; give another or a file.")
    return path
