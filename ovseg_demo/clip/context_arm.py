"""The context arm of ovseg-mini: the adapted arm on the crop, mixed with a head that also reads the photo.

With a the adapted arm's unit vector of a region (768) and t its unit vector of a name, c the head's unit
vector of the region (384) and u its text map's unit vector of the name, the logit of the name is

    logit = (1 - w) * s_a * cos(a, t) + w * s_c * cos(c, u)

where s_a and s_c are the two scales and w is the head's weight. One cosine gives the same number. With

    A = (1 - w) * s_a,    C = w * s_c,    n = sqrt(A ** 2 + C ** 2)
    image = [A / n * a ; C / n * c]                  (1152), of length 1
    text  = [t ; u] / sqrt(2)                        (1152), of length 1

their cosine is (A * cos(a, t) + C * cos(c, u)) / (n * sqrt(2)), and a score scale of n * sqrt(2) gives the
logit. The text tower has one linear map of 3 * 384 rows: the two of the adapted arm and the head's.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ovseg_demo.clip.context import ContextConfig, ContextHead, photo_input, pool_photo, region_cover
from ovseg_demo.clip.mini import (
    KNOWN_NAMES,
    MiniImageTower,
    load_mini,
    read_known_names,
)
from ovseg_demo.clip.minilm import TEXT_WIDTH, MiniTextTower, text_digest
from ovseg_demo.clip.model import MaskAdaptedCLIP, RegionCache
from ovseg_demo.clip.name_bank import BANK_PREFIX, bank_of
from ovseg_demo.errors import CheckpointError
from ovseg_demo.files import file_sha256
from ovseg_demo.weight_files import (
    check_finite,
    check_names_and_shapes,
    entries_of,
    file_label,
    read_file,
    tensor_of,
)

HEAD_PREFIX = "head."
TEXT_MAP = "text.projection.weight"


class ContextCLIP(MaskAdaptedCLIP):
    """The adapted arm of an ovseg-mini with a head that also reads the photo.

    Args:
        adapted: the adapted arm; its image tower is shared, not copied.
        head: reads crops and photo.
        text_map: (384, 384) the head's own map of sentence vectors.
        weight: w, the share of the head's logit, 0..1; the adapted arm has the rest.
        head_scale: s_c, the scale of the head's cosines.
        calibration: numbers of the default merge rule.

    Attributes:
        head: see Args.
        weight: see Args.
        head_scale: see Args.
    """

    sees_photo = True

    def __init__(
        self,
        adapted: MaskAdaptedCLIP,
        head: ContextHead,
        text_map: Tensor,
        *,
        weight: float,
        head_scale: float,
        calibration: dict[str, float] | None = None,
    ) -> None:
        adapted_part, head_part = (1 - weight) * adapted.score_scale, weight * head_scale
        length = math.hypot(adapted_part, head_part)
        text = MiniTextTower(adapted.embed_dim + TEXT_WIDTH)
        adapted_map = cast(MiniTextTower, adapted.text_tower).projection.weight
        text.projection.weight.data = torch.cat([adapted_map.detach(), text_map.to(adapted_map)])
        super().__init__(
            adapted.image_tower,
            text,
            embed_dim=adapted.embed_dim + TEXT_WIDTH,
            crop_recipe=adapted.crop_recipe,
            score_scale=length * math.sqrt(2),
            name=adapted.name,
            calibration=calibration,
        )
        self.head = head
        self.weight, self.head_scale = weight, head_scale
        self.text_parts = (adapted.embed_dim, TEXT_WIDTH)
        self._shares = (adapted_part / length, head_part / length)

    @property
    def crop_dim(self) -> int:
        """See `MaskAdaptedCLIP.crop_dim`: the adapted arm's width."""
        return self.text_parts[0]

    @torch.no_grad()
    def encode_photo_regions(
        self,
        image: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        *,
        use_prompts: bool = True,
        cache: RegionCache | None = None,
    ) -> Tensor:
        """See `MaskAdaptedCLIP.encode_photo_regions`; the head reads the trunk's patches before prompts."""
        crops = self._crop_features(image, masks, use_prompts, RegionCache() if cache is None else cache)
        photo = photo_input(image, self.crop_recipe, self.head.config)
        trunk = cast(MiniImageTower, self.image_tower).trunk
        fine, coarse = trunk.maps(
            photo.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        )
        stack = torch.from_numpy(np.require(masks, requirements=["C", "W"]))
        cover = region_cover(stack, photo.shape[2], photo.shape[3]).to(self.device)
        context = self.head(
            {"crop": crops.descriptors, **pool_photo(fine[0].float(), coarse[0].float(), cover)}
        )
        adapted_share, head_share = self._shares
        return torch.cat([adapted_share * crops.features, head_share * context], dim=1)


def is_context_file(path: Path) -> bool:
    """Whether a file holds a head and no image tower; not so for one that is no safetensors."""
    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith(HEAD_PREFIX) for key in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def load_context(path: Path) -> ContextCLIP:
    """Load the context arm.

    Args:
        path: `context.safetensors`, with `adapted.safetensors` and `config.json` beside it.

    Raises:
        CheckpointError: a file is missing or damaged, its tensors are not those of the config, or its bank of
            names is of another adapted arm.
    """
    adapted_file = path.with_name("adapted.safetensors")
    if not adapted_file.is_file():
        raise CheckpointError(f"{file_label(path)} needs {adapted_file.name} beside it, which is missing.")
    adapted = load_mini(adapted_file)
    record = json.loads((path.parent / "config.json").read_text("utf-8"))
    section, scales = record.get("context", {}), record["score_scale"]
    lost = [f.name for f in fields(ContextConfig) if f.name not in section]
    lost += [name for name in ("weight",) if name not in section]
    if lost or path.stem not in scales:
        what = f"context.{lost[0]}" if lost else f"a score_scale of {path.stem}"
        raise CheckpointError(f"{path.parent / 'config.json'} lacks {what}; export the model again.")
    head = ContextHead(ContextConfig(**{f.name: section[f.name] for f in fields(ContextConfig)}))
    tensors, bank = _tensors(path)
    wanted = {f"{HEAD_PREFIX}{key}": value.shape for key, value in head.state_dict().items()}
    check_names_and_shapes(
        tensors,
        wanted | {TEXT_MAP: torch.Size((TEXT_WIDTH, TEXT_WIDTH))},
        f"{file_label(path)} is not an ovseg-mini",
    )
    text_map = tensors.pop(TEXT_MAP)
    head.load_state_dict({key.removeprefix(HEAD_PREFIX): value for key, value in tensors.items()})
    model = ContextCLIP(
        adapted,
        head,
        text_map,
        weight=float(section["weight"]),
        head_scale=float(scales[path.stem]),
        calibration=record.get("calibration", {}).get(path.stem),
    )
    if bank:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        tower = file_sha256(adapted_file)
        model.bank = bank_of(bank, notes, path, width=model.embed_dim, tower=tower)
    text = cast(MiniTextTower, model.text_tower)
    model.text_key = text_digest(text)
    model.known_names = read_known_names(path.parent / KNOWN_NAMES, text, model.text_parts)
    return model


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the head, and the parts of a bank if there is one."""
    entries: dict[str, Any] = dict(entries_of(read_file(path), path))
    bank = {key: entries.pop(key) for key in [*entries] if key.startswith(BANK_PREFIX)}
    tensors = {key: tensor_of(entries, key, path) for key in entries}
    check_finite(tensors, path)
    return tensors, {key.removeprefix(BANK_PREFIX): value for key, value in bank.items()}
