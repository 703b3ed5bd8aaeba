"""MobileSAM's image encoder on rectangles.

The package's TinyViT takes a 1024 x 1024 square, so a quarter of a 4:3 photo's input is padding. Its
convolutions, windows and attention biases do not depend on the size of the picture. Here the same modules run
on the picture's own height and width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.compute.fused_layers import convolve, project


class RectangularTinyViT(nn.Module):
    """Image encoder for any height and width that are multiples of 16.

    Args:
        encoder: the package's TinyViT with its weights; it is changed and must not be used again.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        encoder.eval()  # also computes each window's bias table from the loaded weights
        _fold_batch_norms(encoder)
        self.stem = encoder.patch_embed.seq
        self.stages = encoder.layers
        self.neck = encoder.neck
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (1, 3, H, W), H and W multiples of 16 -> (1, 256, H / 16, W / 16)."""
        first, _, second = self.stem
        x = convolve(first, pixels.contiguous(memory_format=torch.channels_last), "gelu")
        x = convolve(second, x)
        for index, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = _convolution_block(block, x) if index == 0 else _window_block(block, x)
            if stage.downsample is not None:
                merge = stage.downsample
                x = convolve(merge.conv2, convolve(merge.conv1, x, "gelu"), "gelu")
                x = convolve(merge.conv3, x)
        out: Tensor = self.neck(x)
        return out


def _convolution_block(block: Any, x: Tensor) -> Tensor:
    """One inverted bottleneck of the first stage: (1, C, H, W) -> the same."""
    inside = convolve(block.conv2, convolve(block.conv1, x, "gelu"), "gelu")
    return convolve(block.conv3, inside, "gelu", added=x)


def _window_block(block: Any, x: Tensor) -> Tensor:
    """One TinyViT block: attention in windows, a depthwise convolution, an MLP. (1, C, H, W) -> the same."""
    x = x + _attend_in_windows(block.attn, x.permute(0, 2, 3, 1), block.window_size).permute(0, 3, 1, 2)
    x = convolve(block.local_conv, x)
    mlp = block.mlp
    inside = project(mlp.norm(x.permute(0, 2, 3, 1)), mlp.fc1.weight, mlp.fc1.bias, "gelu")
    return x + project(inside, mlp.fc2.weight, mlp.fc2.bias).permute(0, 3, 1, 2)


def _attend_in_windows(attention: Any, x: Tensor, side: int) -> Tensor:
    """Attention inside side x side windows of (1, H, W, C); the last ones are filled up with zeros."""
    _, height, width, channels = x.shape
    below, right = -height % side, -width % side
    x = F.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // side, (width + right) // side
    x = x.view(rows, side, columns, side, channels).transpose(1, 2)
    x = x.reshape(rows * columns, side * side, channels)

    qkv = attention.qkv(attention.norm(x)).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    q, k, v = qkv.split([attention.key_dim, attention.key_dim, attention.d], dim=-1)
    # With a mask of three dimensions PyTorch has no fused attention on a CPU.
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=attention.ab[None], scale=attention.scale)
    x = attention.proj(x.transpose(1, 2).flatten(2))

    x = x.view(rows, columns, side, side, channels).transpose(1, 2)
    return x.reshape(1, rows * side, columns * side, channels)[:, :height, :width]


def _fold_batch_norms(module: nn.Module) -> None:
    """Replace every convolution with its batch norm by one convolution, in place."""
    for name, child in module.named_children():
        if set(dict(child.named_children())) == {"c", "bn"}:
            setattr(module, name, child.fuse())  # type: ignore[operator]
        else:
            _fold_batch_norms(child)
