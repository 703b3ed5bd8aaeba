"""The two halves of a CLIP: an image tower with mask prompts, and a text tower.

`ClipImageTower` calls the modules of open_clip's VisionTransformer, unchanged. `mask_prompts.py` explains
mask prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg_demo.clip.changed_crops import Box
from ovseg_demo.clip.mask_prompts import MaskPrompts, run_blocks


class ImageTower(Protocol):
    """Protocol of image towers, which are also an `nn.Module`."""

    @property
    def image_size(self) -> int:
        """Side S of a crop in pixels."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""

    @property
    def grid(self) -> int:
        """Patches per side."""

    @property
    def prompts(self) -> MaskPrompts | None:
        """The mask prompts, None in a tower without."""

    def __call__(self, crops: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """(B, 3, S, S) crops and (B, grid * grid) token masks -> (B, D) features, not normalised."""


@runtime_checkable
class TowerWithStem(Protocol):
    """An image tower whose first part is never trained, so that arms can share its output for a crop."""

    patch_width: int
    """Channels C of the trunk's patches."""

    def stem(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) crops -> the output of the first part, (B, ...)."""

    def stem_early(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) crops -> the output of the first layers of `stem`, (B, ...)."""

    def stem_early_changed(self, known: Tensor, crops: Tensor, boxes: Sequence[Box]) -> Tensor:
        """The same for crops that equal the crop of `known`, (1, ...), outside of a box each."""

    def stem_late(self, early: Tensor) -> Tensor:
        """Output of `stem_early` -> output of `stem`."""

    def trunk_patches(self, features: Tensor) -> Tensor:
        """Output of the stem -> (B, C, grid, grid) patches, before mask prompts."""

    def from_trunk(self, seen: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """The rest of the tower: (B, C, grid, grid) patches -> (B, D) features, not normalised."""

    def stem_weights(self) -> Sequence[Tensor]:
        """All that `stem` depends on."""


class TextTower(Protocol):
    """Protocol of text towers, which are also an `nn.Module`."""

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, D) features, not normalised."""


def tower_with_prompts(tower: ImageTower, prompts: MaskPrompts) -> ImageTower:
    """The same image tower with other mask prompts. All other weights are shared; `tower` stays as it is."""
    other = copy.copy(cast(nn.Module, tower))
    # A plain assignment would reach the dictionary of modules that both have in common.
    other.__dict__["_modules"] = {**other._modules, "prompts": prompts}
    return cast(ImageTower, other)


class ClipImageTower(nn.Module):
    """A CLIP vision transformer, with mask prompts if there are any."""

    def __init__(self, visual: VisionTransformer, prompts: MaskPrompts | None = None) -> None:
        super().__init__()
        self.image_size = int(visual.image_size[0])
        self.patch = int(visual.patch_size[0])
        self.grid = int(visual.grid_size[0])
        self.visual = visual
        self.prompts = prompts

    def forward(self, crops: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Embed crops.

        Args:
            crops: (B, 3, S, S) float32, normalised as the model's crop recipe says.
            token_mask: (B, grid * grid) 1 where the patch shows some of the region; None leaves the prompts
                out.

        Returns:
            (B, D) features, not normalised.
        """
        visual = self.visual
        tokens = visual.conv1(crops).flatten(2).transpose(1, 2)  # (B, N, width), row by row
        if self.prompts is not None and token_mask is not None:
            # Level 0 comes before the positions, so that a position is added to a prompt as to any token.
            tokens = self.prompts.at(0, tokens, token_mask)
        class_token = visual.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        x = torch.cat([class_token, tokens], dim=1) + visual.positional_embedding.to(tokens.dtype)
        x = run_blocks(visual.transformer.resblocks, visual.ln_pre(x), self.prompts, token_mask)
        return cast(Tensor, visual.ln_post(x[:, 0]) @ visual.proj)


class OpenClipImageTower(nn.Module):
    """Any other image tower of open_clip: crops in, features out, no places for mask prompts."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        size = cast(Any, visual).image_size
        self.image_size = int(size if isinstance(size, int) else size[0])
        # One patch for the whole crop: without prompts there is no token mask.
        self.patch, self.grid = self.image_size, 1
        self.visual = visual
        self.prompts: MaskPrompts | None = None

    def forward(self, crops: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """(B, 3, S, S) normalised crops -> (B, D) features, not normalised; the mask is not used."""
        features = self.visual(crops)
        return cast(Tensor, features[0] if isinstance(features, tuple) else features)


class OpenClipTextTower(nn.Module):
    """The text tower of any model of open_clip, with the tokeniser that it was trained with.

    Args:
        model: open_clip's model; its image tower is taken out of it.
        tokenize: n sentences -> (n, context) int64 token ids, longer ones cut.
        record: open_clip's configuration of model and pixel values; None if it does not say everything.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Callable[[list[str]], Tensor],
        record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        cast(Any, model).visual = nn.Identity()  # belongs to the image tower
        self.model = model
        self.tokenize = tokenize
        self.record = record

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, D) features, not normalised."""
        tokens = self.tokenize(list(sentences))
        return cast(Tensor, cast(Any, self.model).encode_text(tokens.to(next(self.parameters()).device)))


class ClipTextTower(nn.Module):
    """CLIP's text transformer with its tokeniser.

    A sentence of more tokens than the context (77 in every CLIP) is cut. Its last token becomes the end
    token, whose feature CLIP takes, so a very long name is embedded by its first words.
    """

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        clip.visual = nn.Identity()  # belongs to the image tower
        self.clip = clip

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, context) int64 token ids, filled up with 0."""
        return cast(Tensor, open_clip.tokenize(list(sentences), context_length=self.clip.context_length))

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """n sentences -> (n, D) features, not normalised."""
        return cast(Tensor, self.clip.encode_text(self.tokens(sentences).to(self.clip.attn_mask.device)))
