"""The last pooling of an image tower, restricted to regions, for each kind of tower.

A CLIP tower ends in a pooling that turns its map of a picture into one feature: a class token that attends to
the patches, a learned query that does, or a mean. Restricted to the cells of one region, the same pooling
gives a feature of that region in the space of the names, without training (TextRegion, arXiv 2505.23769).

    class token    VisionTransformer of open_clip, and timm's with a class token (EVA-02, MobileCLIP-B)
    query          ResNet of CLIP; timm's with attention pooling (SigLIP, PE-Core)
    mean           ConvNeXt, FastViT (MobileCLIP) and all others of timm

`RegionPooling.features` of a picture whose region is the picture is the tower's own output, to rounding. The
class token of a vision transformer is the exception: `class_token` says whether its residual stream takes
part. That stream attends to the whole photo in every block, which makes all regions of one photo similar.
Without it, as in TextRegion, a region is the mean of the last block's values under its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from open_clip.model import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from ovseg_demo.clip.towers import ClipImageTower, ImageTower, OpenClipImageTower
from ovseg_demo.errors import ModelError

CONVOLUTION_STRIDE = 32
_REGIONS_AT_ONCE = 16


@dataclass(frozen=True)
class PictureMap:
    """Output of a tower for pictures, before its last pooling.

    Attributes:
        cells: (B, N, E) the cells of the map row by row, without class tokens.
        prefix: (B, P, E) class and register tokens; P may be 0.
        grid: rows and columns of the map, N together.
        more: further arguments of the tower's last block.
    """

    cells: Tensor
    prefix: Tensor
    grid: tuple[int, int]
    more: Any = None


class RegionPooling(Protocol):
    """Protocol of the restricted pooling of one kind of tower."""

    multiple: int
    """Sides of pictures are multiples of this, in pixels."""
    any_size: bool
    """False: pictures have the tower's own size."""

    def map(self, pictures: Tensor) -> PictureMap:
        """(B, 3, h, w) normalised pictures -> their maps."""

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        """Pool regions of one picture.

        Args:
            seen: from `map`.
            picture: which of them.
            cover: (R, N) the region's cover of each cell, 0..1, above 0 somewhere.

        Returns:
            (R, D), not normalised.
        """


def pooling_of(tower: ImageTower, *, class_token: bool = False) -> RegionPooling:
    """The restricted pooling of a tower.

    Args:
        tower: the image tower.
        class_token: whether the class token's own stream takes part, where it can be left out.

    Raises:
        ModelError: there is none for this kind of tower.
    """
    visual: Any = tower.visual if isinstance(tower, (ClipImageTower, OpenClipImageTower)) else None
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        last = visual.transformer.resblocks[-1]
        if visual.pool_type == "avg":
            return _MeanOfTokens(visual)
        if visual.pool_type == "tok" and isinstance(last, ResidualAttentionBlock):
            return _ClassToken(visual, class_token)
    if isinstance(visual, ModifiedResNet):
        return _ResNetQuery(visual)
    if isinstance(visual, TimmModel) and "pool" not in visual.head._modules:
        trunk: Any = visual.trunk
        if getattr(trunk, "attn_pool", None) is not None:
            if _is_latent(trunk.attn_pool):
                return _LatentQuery(visual, class_token)
        elif getattr(trunk, "global_pool", "") == "token" and hasattr(trunk, "blocks"):
            return _TimmClassToken(visual)
        else:
            return _TimmMean(visual)
    kind = type(visual if visual is not None else tower).__name__
    raise ModelError(f"An image tower of the kind {kind} has no context arm; use vanilla.")


# --- open_clip's own vision transformer ------------------------------------------------------------------


def resized_positions(positions: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Positional embedding for another grid.

    Args:
        positions: (1 + own rows * own columns, E), the class token's in front.
        own: the tower's grid.
        grid: the wanted one; with the tower's own the values are unchanged.

    Returns:
        (1 + rows * columns, E).
    """
    if grid == own:
        return positions
    places = positions[1:].T.reshape(1, -1, *own).float()
    places = functional.interpolate(places, grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([positions[:1], places[0].flatten(1).T.to(positions.dtype)])


class _OpenClipViT:
    any_size = True

    def __init__(self, visual: VisionTransformer) -> None:
        self.visual = visual
        self.multiple = int(visual.patch_size[0])

    def tokens(self, pictures: Tensor, blocks: slice) -> tuple[Tensor, tuple[int, int]]:
        """(B, 1 + N, E) after some of the blocks, and the grid."""
        visual = self.visual
        patches = visual.conv1(pictures)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        tokens = patches.flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        positions = resized_positions(visual.positional_embedding, visual.grid_size, grid)
        x = visual.ln_pre(torch.cat([class_token, tokens], dim=1) + positions.to(tokens.dtype))
        for block in visual.transformer.resblocks[blocks]:
            x = block(x)
        return x, grid


class _ClassToken(_OpenClipViT):
    """The class token's attention in the last block, or the mean of the last block's values."""

    def __init__(self, visual: VisionTransformer, class_token: bool) -> None:
        super().__init__(visual)
        self.class_token = class_token

    def map(self, pictures: Tensor) -> PictureMap:
        x, grid = self.tokens(pictures, slice(None, -1))
        return PictureMap(x[:, 1:], x[:, :1], grid)

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        visual, block = self.visual, self.visual.transformer.resblocks[-1]
        heads = block.attn.num_heads
        x = torch.cat([seen.prefix[picture], seen.cells[picture]])
        parts = functional.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, keys, values = (part.unflatten(-1, (heads, -1)) for part in parts.chunk(3, dim=-1))
        if self.class_token:
            pooled = _attend(query[0].expand(len(cover), -1, -1), keys, values, with_prefix(cover, 1))
        else:
            pooled = torch.einsum("rn,nhd->rhd", _shares(cover).to(values.dtype), values[1:])
        y = block.ls_1(block.attn.out_proj(pooled.flatten(1)))
        if self.class_token:
            y = x[0] + y
        y = y + block.ls_2(block.mlp(block.ln_2(y)))
        return cast(Tensor, visual.ln_post(y) @ visual.proj)


class _MeanOfTokens(_OpenClipViT):
    """The mean of the last block's tokens."""

    def map(self, pictures: Tensor) -> PictureMap:
        x, grid = self.tokens(pictures, slice(None))
        x = x if self.visual.final_ln_after_pool else self.visual.ln_post(x)
        return PictureMap(x[:, 1:], x[:, :0], grid)

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        pooled = _mean(seen.cells[picture], cover)
        if self.visual.final_ln_after_pool:
            pooled = self.visual.ln_post(pooled)
        return cast(Tensor, pooled @ self.visual.proj)


# --- CLIP's ResNet ---------------------------------------------------------------------------------------


class _ResNetQuery:
    """CLIP's attention pooling, whose query is the mean of what it attends to."""

    multiple = CONVOLUTION_STRIDE
    any_size = True

    def __init__(self, visual: ModifiedResNet) -> None:
        self.visual = visual

    def map(self, pictures: Tensor) -> PictureMap:
        x = self.visual.stem(pictures)
        for layer in (self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4):
            x = layer(x)
        return PictureMap(x.flatten(2).transpose(1, 2), x[:, :0].flatten(2), (x.shape[2], x.shape[3]))

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        pool = self.visual.attnpool
        side = round((len(pool.positional_embedding) - 1) ** 0.5)
        places = resized_positions(pool.positional_embedding, (side, side), seen.grid)
        places = places.to(seen.cells.dtype)
        own = _mean(seen.cells[picture], cover) + places[0]  # (R, E), each region's mean
        cells = seen.cells[picture] + places[1:]
        split = (pool.num_heads, -1)
        query, own_key, own_value = (
            layer(own).unflatten(-1, split) for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        keys, values = (layer(cells).unflatten(-1, split) for layer in (pool.k_proj, pool.v_proj))
        scale = query.shape[-1] ** -0.5
        logits = torch.einsum("rhd,nhd->rhn", query * scale, keys) + _logs(cover, query.dtype)[:, None]
        to_own = (query * scale * own_key).sum(-1, keepdim=True)
        shares = torch.cat([to_own, logits], dim=-1).softmax(-1)
        pooled = shares[..., :1] * own_value + torch.einsum("rhn,nhd->rhd", shares[..., 1:], values)
        return cast(Tensor, pool.c_proj(pooled.flatten(1)))


# --- towers of timm --------------------------------------------------------------------------------------


class _Timm:
    any_size = False

    def __init__(self, visual: TimmModel) -> None:
        self.visual = visual
        self.trunk: Any = visual.trunk
        self.multiple = 1

    def split(self, tokens: Tensor, pictures: Tensor, more: Any = None) -> PictureMap:
        """Tokens (B, P + N, E) of pictures, P of them no cells."""
        prefix = int(getattr(self.trunk, "num_prefix_tokens", 0))
        grid = getattr(getattr(self.trunk, "patch_embed", None), "grid_size", None)
        count = tokens.shape[1] - prefix
        if grid is None or grid[0] * grid[1] != count:
            grid = (round(count**0.5),) * 2
        return PictureMap(tokens[:, prefix:], tokens[:, :prefix], (int(grid[0]), int(grid[1])), more)

    def after_pool(self, pooled: Tensor) -> Tensor:
        """(R, E) pooled -> (R, D)."""
        trunk = self.trunk
        return cast(Tensor, self.visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(pooled)))))


class _LatentQuery(_Timm):
    """A learned query that attends to the tokens."""

    def __init__(self, visual: TimmModel, class_token: bool) -> None:
        super().__init__(visual)
        self.class_token = class_token
        # timm's own vision transformer leaves the class token out unless told; EVA takes it in.
        self.includes_prefix = bool(getattr(self.trunk, "pool_include_prefix", True))

    def map(self, pictures: Tensor) -> PictureMap:
        return self.split(self.trunk.forward_features(pictures), pictures)

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        pool = self.trunk.attn_pool
        x = seen.cells[picture]
        if self.class_token and self.includes_prefix:
            x = torch.cat([seen.prefix[picture], x])
            cover = with_prefix(cover, seen.prefix.shape[1])
        if pool.pos_embed is not None:
            x = x + pool.pos_embed[-len(x) :].to(x.dtype)
        split = (pool.num_heads, pool.head_dim)
        query = pool.q_norm(pool.q(pool.latent[0, :1].to(x.dtype)).unflatten(-1, split))
        keys, values = pool.kv(x).unflatten(-1, (2, *split)).unbind(1)
        pooled = _attend(query.expand(len(cover), -1, -1), pool.k_norm(keys), values, cover)
        y = pool.proj_drop(pool.proj(pooled.flatten(1)))
        if pool.mlp is not None:
            y = y + pool.mlp(pool.norm(y))
        return self.after_pool(y)


class _TimmClassToken(_Timm):
    """The class token of timm's transformers: their last block once more for each region, with a mask."""

    def map(self, pictures: Tensor) -> PictureMap:
        kept: dict[str, Any] = {}

        def keep(block: nn.Module, given: tuple[Tensor, ...], more: dict[str, Any]) -> None:
            kept.update(
                x=given[0], more={k: v for k, v in more.items() if k not in ("attn_mask", "is_causal")}
            )

        hook = self.trunk.blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self.trunk.forward_features(pictures)
        finally:
            hook.remove()
        return self.split(kept["x"], pictures, kept["more"])

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        prefix = seen.prefix.shape[1]
        x = torch.cat([seen.prefix[picture], seen.cells[picture]])
        rows = []
        for some in cover.split(_REGIONS_AT_ONCE):
            bias = _logs(with_prefix(some, prefix), x.dtype)[:, None, None]
            rows.append(self.trunk.blocks[-1](x.expand(len(some), -1, -1), **seen.more, attn_mask=bias)[:, 0])
        return self.after_pool(self.trunk.norm(torch.cat(rows)))


class _TimmMean(_Timm):
    """The mean of a map: (B, E, h, w), (B, h, w, E) or (B, N, E), as the tower has it."""

    def __init__(self, visual: TimmModel) -> None:
        super().__init__(visual)
        # Convolutions take any size; towers of tokens and Swin's windows have their own.
        self.any_size = not hasattr(self.trunk, "patch_embed")
        self.multiple = CONVOLUTION_STRIDE if self.any_size else 1
        self._channels_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"

    def map(self, pictures: Tensor) -> PictureMap:
        x = self.trunk.forward_features(pictures)
        if x.ndim == 3:
            return self.split(x, pictures)
        x = x if self._channels_last else x.permute(0, 2, 3, 1)
        return PictureMap(x.flatten(1, 2), x[:, 0, :0], (x.shape[1], x.shape[2]), more=x.ndim)

    def features(self, seen: PictureMap, picture: int, cover: Tensor) -> Tensor:
        pooled = _mean(seen.cells[picture], cover)
        if seen.more is None:
            # A mean over one cell is that cell; class tokens do not take part in it.
            prefix = seen.prefix[picture].expand(len(pooled), -1, -1)
            return cast(
                Tensor, self.visual.head(self.trunk.forward_head(torch.cat([prefix, pooled[:, None]], 1)))
            )
        cell = pooled[:, None, None, :] if self._channels_last else pooled[:, :, None, None]
        return cast(Tensor, self.visual.head(self.trunk.forward_head(cell)))


# --- shared by all -----------------------------------------------------------------------------------------


def _is_latent(pool: nn.Module) -> bool:
    """Whether a pooling of timm has one learned query."""
    return getattr(pool, "latent_len", 0) == 1 and getattr(pool, "pool", "") in ("token", "avg")


def with_prefix(cover: Tensor, count: int) -> Tensor:
    """Cover (R, N) with `count` tokens in front that every region attends to."""
    return functional.pad(cover, (count, 0), value=1.0)


def _shares(cover: Tensor) -> Tensor:
    return cover / cover.sum(1, keepdim=True).clamp(min=1e-12)


def _logs(cover: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to a cell's attention logit; no attention where nothing is covered."""
    return cover.float().log().to(dtype)


def _mean(cells: Tensor, cover: Tensor) -> Tensor:
    """(N, E) cells and (R, N) cover -> (R, E)."""
    return _shares(cover).to(cells.dtype) @ cells


def _attend(query: Tensor, keys: Tensor, values: Tensor, cover: Tensor) -> Tensor:
    """(R, H, d) queries, (N, H, d) keys and values, (R, N) cover -> (R, H, d)."""
    logits = torch.einsum("rhd,nhd->rhn", query * query.shape[-1] ** -0.5, keys)
    shares = (logits + _logs(cover, logits.dtype)[:, None]).softmax(-1)
    return torch.einsum("rhn,nhd->rhd", shares, values)
