"""ovseg-mini: a compact CLIP whose weights fit in the repository.

Image tower: a convolutional trunk (EfficientNet-Lite2, ImageNet weights, batch norms folded in) takes the
place of a ViT's patch embedding. It turns a 224-pixel crop into a 7 x 7 grid of tokens. The rest is a ViT
like CLIP's, and mask prompts apply as in the paper (section 3.3). A second branch pools the trunk's patches:
their mean gives a posterior over the 1,000 ImageNet classes; the branch adds the vectors of the class names,
weighted with it, and the output of a small MLP. Patches that mask prompts replace are not in the mean. Each
branch fills one half of the shared space and is trained alone; a cosine is the mean of the two halves'.
Text tower: all-MiniLM-L6-v2 from its own package, and a linear map for each half (minilm.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from open_clip.transformer import ResidualAttentionBlock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.changed_crops import Box, changed_maps
from ovseg_demo.clip.mask_prompts import MaskPrompts, run_blocks
from ovseg_demo.clip.minilm import TEXT_WIDTH, MiniTextTower, map_digests, text_digest
from ovseg_demo.clip.patch_trunk import HEAD_CHANNELS, PatchTrunk
from ovseg_demo.clip.text import unit_parts
from ovseg_demo.errors import CheckpointError
from ovseg_demo.regions import CropRecipe
from ovseg_demo.weight_files import check_names_and_shapes, file_label

if TYPE_CHECKING:
    from ovseg_demo.clip.model import MaskAdaptedCLIP

CLASSES = 1000  # of ImageNet
PATCH = 32
EARLY_AT_ONCE_ON_CPU = 4  # the first maps are large: those of more crops do not fit a core's cache
KNOWN_NAMES = "names.safetensors"
CROP_RECIPE = CropRecipe(
    size=224,
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
    antialias=True,
    max_stretch=1.5,
)


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the tower; what `config.json` beside the weights records."""

    width: int = 192
    """Width of a token; heads are width // 64."""
    layers: int = 6
    """Transformer blocks."""
    pooled_branch_width: int = 768
    """Hidden width of the perceptron behind the mean patch."""
    embed_dim: int = 2 * TEXT_WIDTH
    """Width of the space that image and text share: one half the transformer's, one the pooled branch's."""


class MiniImageTower(nn.Module):
    """Trunk, tokens, transformer, class token, projection."""

    patch_width = HEAD_CHANNELS

    def __init__(self, config: MiniConfig | None = None, prompt_depth: int = 0) -> None:
        super().__init__()
        self.config = config = config or MiniConfig()
        self.image_size, self.patch = CROP_RECIPE.size, PATCH
        self.grid = self.image_size // self.patch
        width, half = config.width, config.embed_dim // 2
        self.trunk = PatchTrunk().fold_batch_norms()
        self.patch_embedding = nn.Conv2d(HEAD_CHANNELS, width, kernel_size=1, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(0.02 * torch.randn(self.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ResidualAttentionBlock(width, width // 64) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, half))
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)
        self.class_text = nn.Parameter(torch.zeros(CLASSES, half))
        self.pooled_branch = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(HEAD_CHANNELS, config.pooled_branch_width),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(config.pooled_branch_width, half),
        )
        self.branch_weights = nn.Parameter(torch.ones(2))  # lengths of the two halves
        self.prompts = MaskPrompts(prompt_depth, self.grid**2, width) if prompt_depth else None

    def forward(self, crops: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Embed crops.

        Args:
            crops: (B, 3, 224, 224) normalised by `CROP_RECIPE`.
            token_mask: (B, 49) 1 where a patch shows some of the region; None leaves mask prompts out.

        Returns:
            (B, embed_dim); its halves have the lengths `branch_weights`.
        """
        return self.from_stem(self.stem(crops), token_mask)

    def stem(self, crops: Tensor) -> Tensor:
        """The trunk's frozen part: (B, 3, 224, 224) -> (B, 88, 14, 14)."""
        return self.stem_late(self.stem_early(crops))

    def stem_early(self, crops: Tensor) -> Tensor:
        """The first layers of the stem: (B, 3, S, S) -> (B, 24, S / 4, S / 4)."""
        early = self.trunk.stem[: self.trunk.EARLY]
        crops = crops.contiguous(memory_format=torch.channels_last)
        if crops.device.type != "cpu" or len(crops) <= EARLY_AT_ONCE_ON_CPU:
            return self.trunk.run(early, crops)
        return torch.cat([self.trunk.run(early, some) for some in crops.split(EARLY_AT_ONCE_ON_CPU)])

    def stem_early_changed(self, known: Tensor, crops: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The same for crops that equal the crop of `known` outside of a box each."""
        return changed_maps(self.stem_early, self.trunk.EARLY_REACH, known, crops, boxes)

    def stem_late(self, early: Tensor) -> Tensor:
        """The rest of the stem: output of `stem_early` -> (B, 88, S / 16, S / 16)."""
        return self.trunk.run(self.trunk.stem[self.trunk.EARLY :], early)

    def stem_weights(self) -> list[Tensor]:
        """All that `stem` depends on."""
        return list(self.trunk.stem.state_dict().values())

    def from_stem(self, features: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """The same from the output of the trunk's frozen part, (B, 88, 14, 14)."""
        return self.from_trunk(self.trunk_patches(features), token_mask)

    def trunk_patches(self, features: Tensor) -> Tensor:
        """The trunk's patches, (B, 88, 14, 14) -> (B, 1280, 7, 7)."""
        return self.trunk.run(self.trunk.top, features)

    def from_trunk(self, seen: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """The same from the trunk's patches, (B, 1280, 7, 7)."""
        read = torch.ones_like(seen[:, 0]).flatten(1)  # the patches that are pooled
        if self.prompts is not None and token_mask is not None:
            read = token_mask.to(seen.dtype)  # patches that a prompt replaces are left out
        halves = torch.stack([self.from_patches(seen, token_mask), self.from_mean(mean_patch(seen, read))], 1)
        return (functional.normalize(halves, dim=-1) * self.branch_weights[:, None]).flatten(1)

    def from_patches(self, seen: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """The transformer's half: the trunk's patches (B, 1280, 7, 7) -> (B, embed_dim / 2)."""
        tokens = self.patch_embedding(seen).flatten(2).transpose(1, 2)
        if self.prompts is not None and token_mask is not None:
            tokens = self.prompts.at(0, tokens, token_mask)
        class_token = self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        x = torch.cat([class_token, tokens], dim=1) + self.positional_embedding.to(tokens.dtype)
        x = run_blocks(self.blocks, self.ln_pre(x), self.prompts, token_mask)
        return cast(Tensor, self.ln_post(x[:, 0]) @ self.proj)

    def from_mean(self, patch: Tensor) -> Tensor:
        """The pooled branch's half: the mean patch (B, 1280) -> (B, embed_dim / 2)."""
        belief = self.classifier(patch).softmax(dim=-1)
        return cast(Tensor, belief @ self.class_text + self.pooled_branch(patch))


def mean_patch(seen: Tensor, read: Tensor) -> Tensor:
    """Mean over the patches that count, (B, C, h, w) and (B, h * w) of 0 and 1 -> (B, C)."""
    share = read / read.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bcn,bn->bc", seen.flatten(2), share.to(seen.dtype))


def load_mini(file: Path) -> MaskAdaptedCLIP:
    """Load one arm of an ovseg-mini.

    Args:
        file: a `.safetensors` file with `config.json` beside it.

    Raises:
        CheckpointError: the file is damaged, or its tensors are not those of the tower in the config.
    """
    from ovseg_demo.clip.checkpoints import read_checkpoint
    from ovseg_demo.clip.model import MaskAdaptedCLIP

    record = json.loads((file.parent / "config.json").read_text("utf-8"))
    tensors = with_current_stem(read_checkpoint(file))
    lost = [field.name for field in fields(MiniConfig) if field.name not in record]
    if lost or file.stem not in record.get("score_scale", {}):
        what = ", ".join(lost) or f"a score_scale of {file.stem}"
        raise CheckpointError(f"{file.parent / 'config.json'} lacks {what}; export the model again.")
    config = MiniConfig(**{field.name: int(record[field.name]) for field in fields(MiniConfig)})
    prompts = tensors.get("visual.prompts.mask_embedding")
    tower = MiniImageTower(config, prompt_depth=0 if prompts is None else len(prompts))
    text = MiniTextTower(config.embed_dim)
    wanted = {f"visual.{key}": value.shape for key, value in tower.state_dict().items()}
    wanted |= {f"text.{key}": value.shape for key, value in text.state_dict().items()}
    check_names_and_shapes(tensors, wanted, f"{file_label(file)} is not an ovseg-mini")
    tower.load_state_dict(
        {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    )
    text.load_state_dict({k.removeprefix("text."): v for k, v in tensors.items() if k.startswith("text.")})
    model = MaskAdaptedCLIP(
        tower,
        text,
        embed_dim=config.embed_dim,
        crop_recipe=CROP_RECIPE,
        score_scale=float(record["score_scale"][file.stem]),
        name="ovseg-mini",
        calibration=record.get("calibration", {}).get(file.stem),
    )
    model.text_key = text_digest(text)
    model.known_names = read_known_names(file.parent / KNOWN_NAMES, text)
    return model


def read_known_names(
    path: Path, text: MiniTextTower, parts: Sequence[int] = ()
) -> dict[tuple[str, str], Tensor]:
    """Features of common names, kept beside the weights; nothing if they belong to other text maps.

    Args:
        path: the file.
        text: whose maps must be those of the file.
        parts: widths of the parts of its space, each a map of its own; by default it is one.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        return {}
    maps = map_digests(text, parts)
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            names = json.loads(notes["names"])
            # A file of one map only may have its hash among the notes.
            stored = [key.rpartition(".")[::2] for key in file.keys()]  # noqa: SIM118 (not a dictionary)
            known: dict[tuple[str, str], Tensor] = {}
            for templates in {one or of for one, of in stored}:
                tensors = []
                for digest in maps:
                    own = (templates, digest) in stored
                    if own or (notes.get("text_tower") == digest and ("", templates) in stored):
                        key = f"{templates}.{digest}" if own else templates
                        tensors.append(file.get_tensor(key).float())
                if len(tensors) == len(maps):
                    rows = unit_parts(torch.cat(tensors, dim=1), parts or tensors[0].shape[1:])
                    known |= {(name, templates): row for name, row in zip(names, rows, strict=True)}
            return known
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); restore it, or delete it.") from error


def with_current_stem(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under current names; in older files the stem has more blocks of the trunk."""
    first = PatchTrunk.STEM_BLOCKS + 3  # of the blocks that moved from stem to top
    moved = {int(key.split(".")[3]) for key in tensors if key.startswith("visual.trunk.stem.")}
    if not moved or max(moved) < first:
        return dict(tensors)
    top = max(moved) - first + 1  # how many blocks came in front of what was top already
    renamed = {f"visual.trunk.stem.{i}.": f"visual.trunk.top.{i - first}." for i in moved if i >= first}
    renamed |= {f"visual.trunk.top.{i}.": f"visual.trunk.top.{i + top}." for i in range(4)}

    def today(key: str) -> str:
        for old, new in renamed.items():
            if key.startswith(old):
                return new + key.removeprefix(old)
        return key

    return {today(key): value for key, value in tensors.items()}


def config_record(config: MiniConfig) -> dict[str, Any]:
    """What goes into config.json."""
    return asdict(config)
