"""SAM 2.1 (Ravi et al., 2024) on single photos, made of transformers' own modules.

Prompts and selection are the same as for SAM. What differs: the picture is stretched to a square, and the
decoder also reads two finer maps of the encoder. All three maps are kept as one array.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.errors import CheckpointError, UnknownModelError, quoted
from ovseg_demo.models.hub import fetch_current, is_file
from ovseg_demo.packages import needs_transformers, require_transformers
from ovseg_demo.proposals.prompting import PointPromptConfig, PointProposer
from ovseg_demo.weight_files import first_keys

HUB = "hf-hub:"
FILES = ("config.json", "model.safetensors")
_FINER = (4, 2)
"""How many times finer than the embedding the two other maps are."""


@dataclass(frozen=True)
class Sam2Maps:
    """One image as the decoder sees it.

    Attributes:
        maps: (1, 32, 4 h, 4 w), (1, 64, 2 h, 2 w) and (1, 256, h, w) in the published sizes.
        height, width: h and w of the last.
    """

    maps: list[Tensor]
    height: int
    width: int


@dataclass(frozen=True)
class Sam2Decoded:
    """A batch of B decoded prompts.

    Attributes:
        quality: (B, M) float32, predicted IoU; the order of M is that of `decoder.Decoded`.
        logits: (B, M, 4 h, 4 w) float32.
    """

    quality: Tensor
    logits: Tensor


class Sam2Decoder:
    """Batched decoding of prompts with transformers' Sam2Model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.dtype = torch.float32

    def prepare(self, embedding: Tensor) -> Sam2Maps:
        """(1, C, h, w) from `pack` -> the three maps."""
        fine = self._model.config.mask_decoder_config.hidden_size // 8
        widths = [fine * _FINER[0] ** 2, 2 * fine * _FINER[1] ** 2]
        first, second = (
            F.pixel_shuffle(m, s)
            for m, s in zip(
                embedding.split([*widths, embedding.shape[1] - sum(widths)], dim=1), _FINER, strict=False
            )
        )
        last = embedding[:, sum(widths) :]
        return Sam2Maps([first, second, last], *last.shape[-2:])

    def decode(self, image: Sam2Maps, points: Tensor) -> Sam2Decoded:
        """(B, 2) points, x and y in pixels of the encoder's square -> three masks for each."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int, device=points.device)
        return self._decode(image, several=True, input_points=points[None, :, None], input_labels=labels)

    def decode_prompt(
        self, image: Sam2Maps, points: Tensor, positive: Tensor, box: Tensor | None
    ) -> Sam2Decoded:
        """One prompt of (N, 2) points, (N,) bool whether inside, and a (4,) box -> four masks.

        The first is the one that is meant for prompts of several parts.
        """
        asked: dict[str, Tensor] = {}
        if len(points):
            asked = {"input_points": points[None, None], "input_labels": positive.int()[None, None]}
        if box is not None:
            asked["input_boxes"] = box[None, None]
        sure, several = (self._decode(image, several=s, **asked) for s in (False, True))
        return Sam2Decoded(
            torch.cat([sure.quality, several.quality], dim=1), torch.cat([sure.logits, several.logits], dim=1)
        )

    def masks(self, decoded: Sam2Decoded, wanted: Tensor) -> Tensor:
        """The (K, 4 h, 4 w) logits of the masks that (B, M) bool wants."""
        return decoded.logits[wanted]

    def edge_masks(self, decoded: Sam2Decoded, wanted: Tensor) -> Tensor:
        """The same: the model has computed all of them already."""
        return self.masks(decoded, wanted)

    def _decode(self, image: Sam2Maps, *, several: bool, **asked: Tensor) -> Sam2Decoded:
        model = self._model
        prompts, no_mask = model.get_prompt_embeddings(**asked)
        logits, quality, *_ = model.mask_decoder(
            image_embeddings=image.maps[-1],
            image_positional_embeddings=model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=no_mask,
            multimask_output=several,
            high_resolution_features=image.maps[:-1],
        )
        return Sam2Decoded(quality[0].float(), logits[0].float())


def pack(maps: list[Tensor]) -> Tensor:
    """The encoder's three maps as one (1, C, h, w), the finer ones folded into channels."""
    first, second, last = maps
    return torch.cat([F.pixel_unshuffle(first, _FINER[0]), F.pixel_unshuffle(second, _FINER[1]), last], dim=1)


def is_sam2(name: str) -> bool:
    """Whether a proposer's name means a SAM 2.1: a repository of the hub, or a folder with its two files."""
    return name.startswith(HUB) or all(is_file(Path(name) / file) for file in FILES)


def find_sam2(name: str, cache_dir: Path) -> Path:
    """The folder with both files, fetched from the hub where the name is a repository's.

    Raises:
        UnknownModelError: the name is no repository's.
        ModelError: the files are not here and cannot be fetched, or transformers is not installed.
    """
    if not name.startswith(HUB):
        return Path(name)
    repository = name.removeprefix(HUB)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UnknownModelError(
            f"{quoted(name)} names no repository: write hf-hub:OWNER/NAME, as in "
            "hf-hub:facebook/sam2.1-hiera-tiny."
        )
    require_transformers("SAM 2.1")
    paths = [fetch_current(repository, file, name, cache_dir) for file in FILES]
    return paths[0].parent


def load_sam2(name: str, folder: Path, *, device: torch.device, plan: PointPromptConfig) -> PointProposer:
    """A SAM 2.1 as a proposer.

    Args:
        name: what the user chose.
        folder: with transformers' config.json and model.safetensors.
        device: where it runs, in float32.
        plan: density and thresholds.

    Raises:
        CheckpointError: the folder holds another model, or lacks weights.
        ModelError: transformers is not installed.
    """
    with needs_transformers("SAM 2.1"):
        from transformers import Sam2Config, Sam2Model
        from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(40)  # published as a model of videos; what concerns memory is left out
    try:
        config = Sam2Config.from_pretrained(folder)
        kind = Sam2Config.get_config_dict(folder)[0].get("model_type")
        if kind not in ("sam2", "sam2_video"):
            raise CheckpointError(f"{folder} holds a model of the kind {quoted(str(kind))}, not a SAM 2.1.")
        loaded: Any = Sam2Model.from_pretrained(
            folder, config=config, output_loading_info=True, local_files_only=True
        )
        model, told = loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is no SAM 2.1 that can be read: {_first_line(error)}") from error
    finally:
        logging.set_verbosity(before)
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(f"{folder} is no whole SAM 2.1: it lacks {first_keys(missing)}.")
    model = model.eval().requires_grad_(False).to(device)
    side = int(model.prompt_encoder.input_image_size)

    def encode(pixels: Tensor) -> Tensor:
        return pack(model.get_image_embeddings(pixels))

    return PointProposer(name, encode, Sam2Decoder(model), side=side, plan=plan, device=device, square=True)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".") + "."
