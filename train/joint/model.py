"""The adapted tower and the context head, trained together on the same regions."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip import MaskAdaptedCLIP
from ovseg_demo.clip.context import DESCRIPTORS, ContextConfig, ContextHead, pool_crop, pool_photo
from ovseg_demo.clip.context_arm import ContextCLIP
from ovseg_demo.clip.minilm import TEXT_WIDTH, MiniTextTower
from ovseg_demo.clip.patch_trunk import PatchTrunk
from train.core.loop import HIGHEST_LOG_SCALE
from train.core.loss import name_loss, photo_loss, row_mask
from train.joint.batches import JointBatch
from train.joint.captions import CaptionBatch

_FIRST_SCALE = 20.0


class JointModel(nn.Module):
    """An adapted image tower, a context head with its text map, and the temperatures.

    The tower's text side stays as it is, and mask prompts come later (train.prompt_tune).

    Args:
        clip: an ovseg-mini; its image tower is trained in place.
        config: sizes of the head.
        prior: (M,) added to the logits of names in the loss.
        caption_weight: of the contrast of captioned photos; half of it for the head.
        descriptor_dropout: how often the head learns without one of its descriptors of the photo.
        photo_weight: of telling the regions and names of one photo apart; half of it for the tower.
    """

    prior: Tensor

    def __init__(
        self,
        clip: MaskAdaptedCLIP,
        config: ContextConfig,
        prior: Tensor,
        *,
        caption_weight: float,
        descriptor_dropout: float,
        photo_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.tower: Any = clip.image_tower
        self.head = ContextHead(config)
        self.context_text = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        nn.init.eye_(self.context_text.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(clip.score_scale)))
        self.context_log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self.caption_log_scales = nn.Parameter(torch.full((2,), math.log(_FIRST_SCALE)))
        self.caption_weight, self.descriptor_dropout = caption_weight, descriptor_dropout
        self.photo_weight = photo_weight
        self.text = cast(MiniTextTower, clip.text_tower)
        self.text.requires_grad_(False)
        self.register_buffer("prior", prior, persistent=False)

    def forward(self, batch: JointBatch, distil: float, amp: bool) -> dict[str, Tensor]:
        """Losses of a batch and the percentage of regions that each arm names right.

        Returns:
            `loss`, of which `adapted` and `context` are those of the regions' names, `within_photo` is that
            of telling a photo's regions and names apart, `captions` and `context_captions` are those of the
            captioned photos, `distil` is one minus the cosine to vanilla's; `top1` and `context_top1`.
        """
        crops = batch.stems
        whole = batch.captions
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=amp):
            patches = self._patches(crops)[1].float()
            image = self.adapted(patches)
            descriptors = self._descriptors(batch, patches)
            context = self.head(descriptors, self.kept_descriptors(len(patches))).float()
        right, ignored = (row_mask(rows, len(batch.names)) for rows in (batch.right, batch.ignored))
        with torch.no_grad():
            names = self._names(batch.names)
        logits = self.log_scale.exp() * image @ names.T
        context_logits = self.context_log_scale.exp() * context @ self.context_names(batch.names).T
        adapted, in_context = (
            name_loss(one + self.prior, right, ignored).mean() for one in (logits, context_logits)
        )
        figures = {"adapted": adapted, "context": in_context}
        loss = adapted + in_context
        if self.photo_weight:
            sizes = [len(cover) for cover in batch.covers]
            head, tower = (photo_loss(one, right, ignored, sizes) for one in (context_logits, logits))
            figures["within_photo"] = head + tower / 2
            loss = loss + self.photo_weight * figures["within_photo"]
        if whole is not None:
            figures |= self._of_captions(whole, amp)
            told_apart = figures["captions"] + figures["context_captions"] / 2
            loss = loss + self.caption_weight * told_apart + distil * figures["distil"]
        figures |= {"top1": _top1(logits, right), "context_top1": _top1(context_logits, right)}
        return {"loss": loss, **{name: value.detach() for name, value in figures.items()}}

    def adapted(self, patches: Tensor) -> Tensor:
        """The adapted arm's unit vectors (B, D), without prompts, of the trunk's patches (B, 1280, 7, 7)."""
        return functional.normalize(self.tower.from_trunk(patches).float(), dim=-1)

    def context_names(self, vectors: Tensor) -> Tensor:
        """(n, 384) sentence vectors -> (n, 384) unit vectors in the head's space."""
        return functional.normalize(self.context_text(vectors), dim=-1)

    def load_head(self, arm: ContextCLIP) -> None:
        """Go on from the head, text map and temperature of a context arm."""
        self.head.load_state_dict(arm.head.state_dict())
        with torch.no_grad():
            own_rows = cast(MiniTextTower, arm.text_tower).projection.weight[-TEXT_WIDTH:]
            self.context_text.weight.copy_(own_rows)
            self.context_log_scale.fill_(math.log(arm.head_scale))

    @torch.no_grad()
    def mean_with(self, clip: MaskAdaptedCLIP, arm: ContextCLIP) -> None:
        """Take the mean of these weights and those of an earlier run, in place (Wortsman et al., 2022).

        Args:
            clip: the run's adapted arm, without mask prompts as this one.
            arm: its context arm.
        """
        other = JointModel(clip, arm.head.config, self.prior, caption_weight=0, descriptor_dropout=0)
        other.load_head(arm)
        other.caption_log_scales.copy_(self.caption_log_scales)
        theirs = other.state_dict()
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value), 0.5)

    def clamp_scales(self) -> None:
        """As in CLIP: cosines are multiplied by 1 to 100."""
        with torch.no_grad():
            for scale in (self.log_scale, self.context_log_scale, self.caption_log_scales):
                scale.clamp_(0, HIGHEST_LOG_SCALE)

    def _names(self, vectors: Tensor) -> Tensor:
        """(n, 384) sentence vectors -> (n, D) unit vectors in the tower's space."""
        return functional.normalize(self.text.project(vectors), dim=-1)

    def _patches(self, stems: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of the stem's output, at stride 16 and 32."""
        top = self.tower.trunk.top
        fine = top[: PatchTrunk.STRIDE_16_BLOCKS](stems.contiguous(memory_format=torch.channels_last))
        return fine, top[PatchTrunk.STRIDE_16_BLOCKS :](fine)

    def _descriptors(self, batch: JointBatch, patches: Tensor) -> dict[str, Tensor]:
        """The descriptors of the regions, see `ovseg_demo.clip.context`."""
        maps = [self._patches(seen) for seen in batch.maps]
        with torch.autocast(patches.device.type, enabled=False):  # means are taken in full precision
            of_photos = [
                pool_photo(fine[0].float(), coarse[0].float(), cover)
                for (fine, coarse), cover in zip(maps, batch.covers, strict=True)
            ]
            crop = pool_crop(patches, batch.share)
        return {"crop": crop, **{name: torch.cat([one[name] for one in of_photos]) for name in of_photos[0]}}

    def kept_descriptors(self, count: int) -> dict[str, Tensor]:
        """Which descriptors of the photo the head learns from; the crop always."""
        if not self.training or not self.descriptor_dropout:
            return {}
        names = [name for name in DESCRIPTORS if name != "crop"]
        return {name: (torch.rand(count, 1) >= self.descriptor_dropout).float() for name in names}

    def _of_captions(self, batch: CaptionBatch, amp: bool) -> dict[str, Tensor]:
        """Contrast of photos and captions in both spaces, and how far the tower is from vanilla."""
        with torch.autocast(batch.stems.device.type, torch.bfloat16, enabled=amp):
            fine, coarse = self._patches(batch.stems)
            image = self.adapted(coarse.float())
            mean = coarse.float().mean((2, 3))
            # The crop of a whole photo stands for the larger one that inference sees.
            everywhere = mean.new_tensor(_WHOLE_PHOTO).expand(len(mean), DESCRIPTORS["geometry"])
            descriptors = {"crop": mean, "photo_32": mean, "photo_16": fine.float().mean((2, 3))}
            context = self.head({**descriptors, "geometry": everywhere}).float()
        with torch.no_grad():
            sentences = self._names(batch.sentences)
        scale, context_scale = self.caption_log_scales
        return {
            "captions": _contrast(image, sentences, scale),
            "context_captions": _contrast(context, self.context_names(batch.sentences), context_scale),
            "distil": 1 - (image * batch.vanilla).sum(1).mean(),
        }


_WHOLE_PHOTO = (1.0, 0.5, 0.0, 12**-0.5, 12**-0.5, 1.0, 1.0, 1.0, 1.0)
"""The geometry of a region that is the whole photo."""


def _contrast(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Of (W, D) photos and (W + N, D) captions, the first W of which are theirs, in their order."""
    logits = log_scale.exp() * image @ text.T
    own = torch.arange(len(image), device=image.device)
    to_text = functional.cross_entropy(logits, own)
    return (to_text + functional.cross_entropy(logits[:, : len(image)].T, own)) / 2


def _top1(logits: Tensor, right: Tensor) -> Tensor:
    """Percentage of rows whose highest logit is right."""
    best = logits.argmax(1, keepdim=True)
    return 100 * right.gather(1, best).float().mean()
