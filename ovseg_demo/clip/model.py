"""The classifier of regions: an image tower with mask prompts, and a text tower."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.changed_crops import Box
from ovseg_demo.clip.context import patch_share, pool_crop
from ovseg_demo.clip.crop_batches import in_parts
from ovseg_demo.clip.mask_prompts import MaskPrompts, token_mask
from ovseg_demo.clip.minilm import MiniTextTower
from ovseg_demo.clip.name_bank import NameBank
from ovseg_demo.clip.text import TEMPLATES, Templates, encode_names, unit_parts
from ovseg_demo.clip.towers import ImageTower, TextTower, TowerWithStem, tower_with_prompts
from ovseg_demo.errors import ModelError
from ovseg_demo.regions import CropRecipe, Regions, crop_regions


@dataclass(frozen=True)
class StemFeatures:
    """Output of the stem of an image tower, which arms may have in common, for regions.

    Attributes:
        stem_id: names that stem, and the recipe of the crops it has seen.
        features: (B, ...) the output.
        shares: (B, grid, grid) the region's share of each patch, 0..1.
    """

    stem_id: str
    features: Tensor
    shares: Tensor

    @property
    def token_masks(self) -> Tensor:
        """(B, grid * grid) 1 where a patch shows some of the region, else 0."""
        return (self.shares > 0).float().flatten(1)


@dataclass(frozen=True)
class CropFeatures:
    """Output of an image tower for the crops of regions.

    Attributes:
        features: (B, D) float32, L2-normalised.
        descriptors: (B, C) float32 mean of the trunk's patches, weighted with the region's share of each.
    """

    features: Tensor
    descriptors: Tensor


@dataclass
class RegionCache:
    """What arms have computed of the same regions of one photo, for the next arm to reuse."""

    stems: dict[str, StemFeatures] = field(default_factory=dict)
    """By the hash of the stem."""
    crops: dict[str, CropFeatures] = field(default_factory=dict)
    """By the hash of the image tower."""
    crop_seconds: float = 0.0
    """Time spent on cutting crops out."""


class MaskAdaptedCLIP(nn.Module):
    """Puts crops of regions and names into one space, where a region lies close to what it shows.

    Attributes:
        name: of the model, for people.
        crop_recipe: how the crops must be made.
        embed_dim: width D of the space.
        score_scale: a cosine times this is a logit; 100 for every published CLIP.
        score_bias: is added to every logit; 0 but for models that were trained with a sigmoid.
        weights_sha256: of the file the weights came from, "" if they came from none.
        weights_files: sha256 by name of all files that the arm is read from.
        calibration: numbers of the default merge rule chosen for these weights; empty = its defaults.
        text_parts: widths of the parts of the space whose text features are averaged and normalised by
            themselves; in most models it is one.
        text_key: names what the features of names depend on; models with the same one share them.
        bank: known regions that vote for names; None = there are none.
        known_names: (D,) features of (name, templates) that came with the weights, so that the hidden names
            and the presets need not be embedded at every start.

    Example:
        >>> clip = load_clip("ovseg-vit-l-14")                              # doctest: +SKIP
        >>> regions = crop_regions(image, masks, clip.crop_recipe)          # doctest: +SKIP
        >>> features = clip.encode_regions(regions.crops, regions.masks)    # doctest: +SKIP
        >>> names = ["cat", "sofa"]                                         # doctest: +SKIP
        >>> text = clip.encode_text(names)                                  # doctest: +SKIP
        >>> logits = clip.region_logits(features.numpy(), text.numpy(), names)  # doctest: +SKIP
    """

    sees_photo = False
    """Whether it sees the photo around a region; if so, crops alone cannot be embedded."""

    def __init__(
        self,
        image_tower: ImageTower,
        text_tower: TextTower,
        *,
        embed_dim: int,
        crop_recipe: CropRecipe | None = None,
        score_scale: float = 100.0,
        score_bias: float = 0.0,
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
        self.score_bias = score_bias
        self.name = name
        self.weights_sha256 = weights_sha256
        self.calibration = dict(calibration or {})
        self.text_parts: tuple[int, ...] = (embed_dim,)
        self.weights_files: dict[str, str] = {}
        self.text_key = ""
        self.bank: NameBank | None = None
        self.known_names: dict[tuple[str, str], Tensor] = {}

    @property
    def crop_dim(self) -> int:
        """Width of what the image tower gives for a crop; an arm that sees more than crops adds to it."""
        return self.embed_dim

    @property
    def weights_id(self) -> str:
        """Names the contents of all files that the arm is read from; "" if it was read from none."""
        files = sorted(self.weights_files.items())
        return hashlib.sha256(repr(files).encode()).hexdigest() if files else ""

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

    def with_prompts(self, prompts: MaskPrompts, file_sha256: str) -> MaskAdaptedCLIP:
        """The same arm with other mask prompts. All other weights are shared; this arm stays as it is.

        Args:
            prompts: of the width of this arm's tokens.
            file_sha256: names their contents.
        """
        other = copy.copy(self)
        tower = tower_with_prompts(self.image_tower, prompts.to(self.device, self.dtype))
        other.__dict__["_modules"] = {**self._modules, "image_tower": tower}
        other.weights_files = {**self.weights_files, "prompts.safetensors": file_sha256}
        other.__dict__["tower_id"] = hashlib.sha256(f"{self.tower_id} {file_sha256}".encode()).hexdigest()
        return other

    def compute_in(self, dtype: torch.dtype) -> MaskAdaptedCLIP:
        """Let image tower and MiniLM compute in another number type; features are float32 all the same."""
        cast(nn.Module, self.image_tower).to(dtype)
        if isinstance(self.text_tower, MiniTextTower):
            self.text_tower.compute_in(dtype)
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
            ModelError: this arm sees the photo.
            ValueError: crops or masks have another shape.
            ResourceError: there is not even memory for one region at a time.
        """
        if self.sees_photo:
            raise ModelError("The context arm sees the whole photo: embed with encode_photo_regions.")
        self._check(crops, masks)

        def embed(some: Tensor, inside: Tensor) -> Tensor:
            kept = token_mask(inside.to(self.device), self.image_tower.patch) if use_prompts else None
            return self.image_tower(some.to(self.device, self.dtype), kept).float()

        return self._unit_vectors(in_parts(self.device, embed, crops, masks))

    @cached_property
    def stem_id(self) -> str | None:
        """Hash of the weights of the image tower's frozen stem; None if the tower has none.

        Two arms with the same hash can share a `StemFeatures`.
        """
        if not isinstance(self.image_tower, TowerWithStem):
            return None
        return self._hash_of(self.image_tower.stem_weights())

    @cached_property
    def tower_id(self) -> str:
        """Hash of all weights of the image tower."""
        return self._hash_of(cast(nn.Module, self.image_tower).state_dict().values())

    def _hash_of(self, weights: Iterable[Tensor]) -> str:
        digest = hashlib.sha256(repr(self.crop_recipe).encode())
        for weight in weights:
            digest.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode_photo_regions(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        *,
        use_prompts: bool = True,
        cache: RegionCache | None = None,
    ) -> Tensor:
        """Embed regions of a photo: what every arm can do, whether it looks at crops only or at more.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: (R, H, W) bool, each with at least one pixel; R may be 0.
            use_prompts: False leaves mask prompts out.
            cache: of the same regions of the same photo; what it has is not computed again, and what is
                computed is added.

        Returns:
            (R, D) float32, L2-normalised, on the model's device.

        Raises:
            ValueError: image or masks have another shape or type, or a mask has no pixel.
            ResourceError: there is not even memory for one region at a time.
        """
        cache = RegionCache() if cache is None else cache
        if self.stem_id is not None:
            return self._crop_features(image, masks, use_prompts, cache).features
        regions = self._cut(image, masks, cache)
        return self.encode_regions(regions.crops, regions.masks, use_prompts)

    def _cut(self, image: NDArray[np.uint8], masks: NDArray[np.bool_], cache: RegionCache) -> Regions:
        started = time.perf_counter()
        regions = crop_regions(image, masks, self.crop_recipe, device=self.device)
        cache.crop_seconds += time.perf_counter() - started
        if len(regions) != len(masks):
            raise ValueError(f"{len(masks) - len(regions)} of the {len(masks)} masks have no pixel.")
        return regions

    def _crop_features(
        self, image: NDArray[np.uint8], masks: NDArray[np.bool_], use_prompts: bool, cache: RegionCache
    ) -> CropFeatures:
        stem_id = cast(str, self.stem_id)
        key = f"{self.tower_id} {use_prompts and self.has_prompts}"
        if key not in cache.crops:
            if stem_id not in cache.stems:
                regions = self._cut(image, masks, cache)
                cache.stems[stem_id] = self.compute_stem(regions.crops, regions.masks)
            cache.crops[key] = self.encode_stem(cache.stems[stem_id], use_prompts)
        return cache.crops[key]

    @torch.no_grad()
    def compute_stem(self, crops: Tensor, masks: Tensor, boxes: Sequence[Box] | None = None) -> StemFeatures:
        """Run the frozen stem on crops; arguments and errors as for `encode_regions`.

        Only for a model that has a stem: see `stem_id`. With `boxes`, one for each crop but the first, all
        crops equal the first outside of their box, and what they share is computed once.
        """
        self._check(crops, masks)
        tower, stem_id = cast(TowerWithStem, self.image_tower), cast(str, self.stem_id)

        def given(some: Tensor) -> Tensor:
            return some.to(self.device, self.dtype)

        if boxes is None:
            features = in_parts(self.device, lambda some: tower.stem(given(some)), crops)
        else:
            known = tower.stem_early(given(crops[:1]))

            def changed(some: Tensor, places: Tensor) -> Tensor:
                those = [cast(Box, tuple(box)) for box in places.tolist()]
                return tower.stem_late(tower.stem_early_changed(known, given(some), those))

            places = torch.tensor(boxes, dtype=torch.int64).view(-1, 4)
            features = [tower.stem_late(known), *in_parts(self.device, changed, crops[1:], places)]
        seen = torch.cat(features) if features else torch.zeros(0, device=self.device)
        return StemFeatures(stem_id, seen, patch_share(masks.to(self.device), self.image_tower.patch))

    @torch.no_grad()
    def encode_stem(self, stem: StemFeatures, use_prompts: bool = True) -> CropFeatures:
        """Embed from the output of the stem; `features` are those of `encode_regions` on the same crops."""
        tower = cast(TowerWithStem, self.image_tower)

        def embed(some: Tensor, kept: Tensor, shares: Tensor) -> Tensor:
            seen = tower.trunk_patches(some)
            features = tower.from_trunk(seen, kept if use_prompts else None)
            return torch.cat([features.float(), pool_crop(seen.float(), shares)], dim=1)

        empty = torch.zeros(0, self.crop_dim + tower.patch_width, device=self.device)
        rows = torch.cat([empty, *in_parts(self.device, embed, stem.features, stem.token_masks, stem.shares)])
        return CropFeatures(functional.normalize(rows[:, : self.crop_dim], dim=-1), rows[:, self.crop_dim :])

    def _check(self, crops: Tensor, masks: Tensor) -> None:
        size = self.image_tower.image_size
        if crops.shape[1:] != (3, size, size) or masks.shape != (len(crops), size, size):
            wanted = f"crops (B, 3, {size}, {size}) and masks (B, {size}, {size})"
            raise ValueError(f"This model takes {wanted}, not {tuple(crops.shape)} and {tuple(masks.shape)}.")

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
        return encode_names(self.text_tower, names, TEMPLATES[templates], self.text_parts).to(self.device)

    def logits(self, features: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, D) and (C, D) unit vectors -> (n, C) float32: cosine times `score_scale` plus `score_bias`."""
        cosines = features @ text.T
        return np.asarray(np.float32(self.score_scale) * cosines + np.float32(self.score_bias), np.float32)

    def region_logits(
        self, features: NDArray[np.float32], text: NDArray[np.float32], names: Sequence[str]
    ) -> NDArray[np.float32]:
        """How well names fit regions: the model's own logit, and what the bank's votes add to it.

        Args:
            features: (R, D) unit vectors of regions.
            text: (C, D) unit vectors of the names.
            names: the C names.

        Returns:
            (R, C) float32.
        """
        logits = self.logits(features, text)
        return logits if self.bank is None else logits + self.bank.log_votes(features, names)

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """Embed whole sentences: n of them -> (n, D) float32, L2-normalised, on the model's device."""
        return unit_parts(self.text_tower(sentences).float(), self.text_parts).to(self.device)
