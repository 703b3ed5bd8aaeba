"""The classifier of regions: an image tower with mask prompts, a text tower, and how they are loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.checkpoints import build_clip, read_checkpoint
from ovseg_demo.clip.mask_prompts import token_mask
from ovseg_demo.clip.text import TEMPLATES, Templates, encode_names
from ovseg_demo.clip.towers import ClipImageTower, ClipTextTower, ImageTower, TextTower, TowerWithStem
from ovseg_demo.devices import in_batches
from ovseg_demo.errors import CheckpointError, ModelError, quoted
from ovseg_demo.files import file_sha256
from ovseg_demo.models import MODELS, exists, resolve
from ovseg_demo.regions import CropRecipe
from ovseg_demo.result import Arm
from ovseg_demo.workers import parallel_map, shares, workers

CROPS_AT_ONCE = 32
CROPS_AT_ONCE_ON_CPU = 8  # more do not fit its caches


@dataclass(frozen=True)
class StemFeatures:
    """What the stem of an image tower, which arms may have in common, makes of regions.

    Attributes:
        stem_id: names that stem, and the recipe of the crops it has seen.
        features: (B, ...) what it made of them.
        token_masks: (B, grid * grid) 1 where a patch shows some of the region.
    """

    stem_id: str
    features: Tensor
    token_masks: Tensor


class MaskAdaptedCLIP(nn.Module):
    """Puts crops of regions and names into one space, where a region lies close to what it shows.

    Attributes:
        name: of the model, for people.
        crop_recipe: how the crops must be made.
        embed_dim: width D of the space.
        score_scale: a cosine times this is a logit; 100 for every published CLIP.
        weights_sha256: of the file the weights came from, "" if they came from none.
        calibration: numbers of the default merge rule chosen for these weights; empty = its defaults.
        text_key: names what the features of names depend on; models with the same one share them.
        known_names: (D,) features of (name, templates) that came with the weights, so that the hidden names
            and the presets need not be embedded at every start.

    Example:
        >>> clip = load_clip("ovseg-vit-l-14")                              # doctest: +SKIP
        >>> regions = crop_regions(image, masks, clip.crop_recipe)          # doctest: +SKIP
        >>> features = clip.encode_regions(regions.crops, regions.masks)    # doctest: +SKIP
        >>> logits = clip.score_scale * features @ clip.encode_text(["cat", "sofa"]).T  # doctest: +SKIP
    """

    def __init__(
        self,
        image_tower: ImageTower,
        text_tower: TextTower,
        *,
        embed_dim: int,
        crop_recipe: CropRecipe | None = None,
        score_scale: float = 100.0,
        name: str = "",
        weights_sha256: str = "",
        calibration: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.embed_dim = embed_dim
        self.crop_recipe = crop_recipe or CropRecipe(size=image_tower.image_size)
        self.score_scale = score_scale
        self.name = name
        self.weights_sha256 = weights_sha256
        self.calibration = dict(calibration or {})
        self.text_key = ""
        self.known_names: dict[tuple[str, str], Tensor] = {}

    @property
    def has_prompts(self) -> bool:
        """Whether there are mask prompts; without them `use_prompts` changes nothing."""
        return self.image_tower.prompts is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the image tower computes in."""
        return next(cast(nn.Module, self.image_tower).parameters()).dtype

    def compute_in(self, dtype: torch.dtype) -> MaskAdaptedCLIP:
        """Let the image tower compute in another number type; features are float32 all the same."""
        cast(nn.Module, self.image_tower).to(dtype)
        return self

    @torch.no_grad()
    def encode_regions(self, crops: Tensor, masks: Tensor, use_prompts: bool = True) -> Tensor:
        """Embed the crops of regions.

        Args:
            crops: (B, 3, S, S) float32 made by `crop_regions` with this model's recipe; B may be 0.
            masks: (B, S, S) of 0 and 1, the region in its crop.
            use_prompts: False runs the plain tower on the same crops.

        Returns:
            (B, D) float32, L2-normalised, on the model's device.

        Raises:
            ValueError: crops or masks have another shape.
            ResourceError: there is not even memory for one region at a time.
        """
        self._check(crops, masks)

        def embed(some: slice) -> Tensor:
            inside = masks[some].to(self.device)
            kept = token_mask(inside, self.image_tower.patch) if use_prompts else None
            return self.image_tower(crops[some].to(self.device, self.dtype), kept).float()

        return self._unit_vectors(self._in_parts(embed, len(crops)))

    @cached_property
    def stem_id(self) -> str | None:
        """Hash of the weights of the image tower's frozen stem; None if the tower has none.

        Two arms with the same hash can share a `StemFeatures`.
        """
        if not isinstance(self.image_tower, TowerWithStem):
            return None
        digest = hashlib.sha256(repr(self.crop_recipe).encode())
        for weight in self.image_tower.stem_weights():
            digest.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def compute_stem(self, crops: Tensor, masks: Tensor) -> StemFeatures:
        """Run the frozen stem on crops; arguments and errors as for `encode_regions`.

        Only for a model that has a stem: see `stem_id`.
        """
        self._check(crops, masks)
        tower, stem_id = cast(TowerWithStem, self.image_tower), cast(str, self.stem_id)
        features = self._in_parts(
            lambda some: tower.stem(crops[some].to(self.device, self.dtype)), len(crops)
        )
        seen = torch.cat(features) if features else torch.zeros(0, device=self.device)
        return StemFeatures(stem_id, seen, token_mask(masks.to(self.device), self.image_tower.patch))

    @torch.no_grad()
    def encode_stem(self, stem: StemFeatures) -> Tensor:
        """Embed from the output of the stem: the same as `encode_regions` on the same crops."""
        tower = cast(TowerWithStem, self.image_tower)

        def embed(some: slice) -> Tensor:
            return tower.from_stem(stem.features[some], stem.token_masks[some]).float()

        return self._unit_vectors(self._in_parts(embed, len(stem.features)))

    def _check(self, crops: Tensor, masks: Tensor) -> None:
        size = self.image_tower.image_size
        if crops.shape[1:] != (3, size, size) or masks.shape != (len(crops), size, size):
            wanted = f"crops (B, 3, {size}, {size}) and masks (B, {size}, {size})"
            raise ValueError(f"This model takes {wanted}, not {tuple(crops.shape)} and {tuple(masks.shape)}.")

    def _in_parts(self, work: Callable[[slice], Tensor], count: int) -> list[Tensor]:
        """Do `count` regions part by part, on all cores of a CPU."""
        at_once = CROPS_AT_ONCE_ON_CPU if self.device.type == "cpu" else CROPS_AT_ONCE

        def of_share(share: slice) -> list[Tensor]:
            def of_part(some: slice) -> Tensor:
                return work(slice(share.start + some.start, share.start + some.stop))

            size = share.stop - share.start
            advice = "choose a smaller model"
            return list(in_batches(of_part, size, at_once, what="one region", advice=advice))

        pieces = shares(count, workers(self.device), at_most=at_once)
        return [part for parts in parallel_map(of_share, pieces, self.device) for part in parts]

    def _unit_vectors(self, features: Sequence[Tensor]) -> Tensor:
        empty = torch.zeros(0, self.embed_dim, device=self.device)
        return functional.normalize(torch.cat([empty, *features]), dim=-1)

    @torch.no_grad()
    def encode_text(self, names: Sequence[str], templates: Templates = "vild") -> Tensor:
        """Embed names.

        Args:
            names: one string each, C of them; C may be 0.
            templates: "vild" (14 sentences per name), "imagenet" (80) or "single" (1).

        Returns:
            (C, D) float32, L2-normalised, on the model's device.

        Raises:
            ValueError: there are no templates of this name.
            ResourceError: there is not even memory for one name at a time.
        """
        if templates not in TEMPLATES:
            raise ValueError(f"There are no templates called {templates!r}; choose {', '.join(TEMPLATES)}.")
        if not names:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return encode_names(self.text_tower, names, TEMPLATES[templates]).to(self.device)


def load_clip(
    name_or_path: str | Path,
    *,
    weights: Arm = "adapted",
    device: str | torch.device = "cpu",
    cache_dir: Path | None = None,
) -> MaskAdaptedCLIP:
    """Load a model of the table by its name, or any known checkpoint file by its path.

    Args:
        name_or_path: a name such as "ovseg-mini", an existing file in one of the forms `checkpoints` reads,
            or a folder that training wrote, with a file for each arm.
        weights: which arm of a model of the table. A file holds one arm only; for it "vanilla" means that its
            mask prompts are left out, which is the vanilla arm if nothing but prompts was trained, and
            "no-prompts" means the same under its right name.
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
    path, sha256 = Path(name_or_path), ""
    arm = "adapted" if weights == "no-prompts" else weights
    # A name of the table means the table, even where a file or folder happens to be called the same.
    if str(name_or_path) in MODELS or not exists(path):
        found = resolve(name_or_path, arm, cache_dir=cache_dir)
        path, sha256 = found.path, found.sha256
    elif arm == "mpt-only":
        raise ModelError(f"{path} is one set of weights and has no mpt-only arm; give that file itself.")
    if path.is_dir():
        path = _arm_in(path, arm)
    if _is_mini(path):
        from ovseg_demo.clip.mini import load_mini

        model = load_mini(path, "vanilla" if arm == "vanilla" else "adapted")
    else:
        model = _load_vit(path, arm)
    if weights in ("no-prompts", "vanilla"):
        cast(Any, model.image_tower).prompts = None
    model.name = model.name or (str(name_or_path) if str(name_or_path) in MODELS else path.stem)
    model.weights_sha256 = model.weights_sha256 or sha256 or (file_sha256(path) if path.is_file() else "")
    model.text_key = model.text_key or model.weights_sha256
    model.to(device)
    model.eval()
    return model


def _load_vit(path: Path, weights: Arm) -> MaskAdaptedCLIP:
    clip, prompts = build_clip(read_checkpoint(path), source=path)
    if weights == "vanilla":
        prompts = None
    embed_dim = int(clip.text_projection.shape[1])
    image_tower = ClipImageTower(clip.visual, prompts)
    return MaskAdaptedCLIP(image_tower, ClipTextTower(clip), embed_dim=embed_dim)


def _arm_in(folder: Path, weights: Arm) -> Path:
    """The file of an arm in a folder that training wrote.

    Raises:
        CheckpointError: it is not there.
    """
    path = folder / f"{weights}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"The folder {quoted(folder, 200)} has no {path.name}; give another or a file.")
    return path


def _is_mini(path: Path) -> bool:
    config = (path if path.is_dir() else path.parent) / "config.json"
    if path.suffix != ".safetensors" and not path.is_dir():
        return False
    try:
        return bool(json.loads(config.read_text("utf-8"))["architecture"] == "ovseg-mini")
    except (OSError, ValueError, KeyError, TypeError):
        return False
