"""The convolutional trunk of ovseg-mini: EfficientNet-Lite2, its batch norms folded in."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ovseg_demo.clip.changed_crops import Reach
from ovseg_demo.compute.fused_layers import Activation, convolve, runs_fused

HEAD_CHANNELS = 1280  # what the trunk's own classifier reads


class PatchTrunk(nn.Module):
    """EfficientNet-Lite2 up to its last convolution, batch norms folded into the convolutions.

    `stem` (to the last block of 88 channels) is never trained by this project, so its output may be cached
    and is shared by all arms; `top` (the blocks of 120, 208 and 352 channels and the head convolution) is
    trained when CLIP is fine-tuned.
    """

    STEM_BLOCKS = 11
    """Blocks of EfficientNet in `stem`."""
    EARLY = 7
    """The first modules of `stem`, which end at stride 4: convolution, norm, activation, four blocks."""
    EARLY_REACH = Reach(stride=4, before=10, after=16)
    """Of `EARLY`: kernels of 3 pixels, stride 2 in the first and the third with padding at the end only."""
    STRIDE_16_BLOCKS = 4
    """The first blocks of `top`, of 120 channels, which leave the stride at 16."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite2", image_size=224)
        blocks = list(network._blocks)
        frozen, trained = blocks[: self.STEM_BLOCKS], blocks[self.STEM_BLOCKS :]
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6(), *frozen)
        self.top = nn.Sequential(*trained, network._conv_head, network._bn1, nn.ReLU6())
        self._folded = False

    def load_imagenet(self, weights: dict[str, Tensor]) -> None:
        """Take the published ImageNet weights (`efficientnet-lite2-9656183e.pth`), batch norms included."""
        conv = self._head_index
        places = {
            "_conv_stem": "stem.0",
            "_bn0": "stem.1",
            "_conv_head": f"top.{conv}",
            "_bn1": f"top.{conv + 1}",
        }
        renamed = {}
        for key, value in weights.items():
            first, rest = key.split(".", 1)
            if first == "_blocks":
                number, rest = rest.split(".", 1)
                above = int(number) - self.STEM_BLOCKS
                where = f"top.{above}" if above >= 0 else f"stem.{int(number) + 3}"
                renamed[f"{where}.{rest}"] = value
            elif first in places:
                renamed[f"{places[first]}.{rest}"] = value
        self.load_state_dict(renamed)

    def fold_batch_norms(self) -> PatchTrunk:
        """Fold every batch norm into the convolution before it: the same numbers from fewer steps."""
        for part in (self.stem, self.top):
            for block in (module for module in part if hasattr(module, "_depthwise_conv")):
                if hasattr(block, "_expand_conv"):
                    _fold(block, "_expand_conv", "_bn0")
                _fold(block, "_depthwise_conv", "_bn1")
                _fold(block, "_project_conv", "_bn2")
        _fold(self.stem, "0", "1")
        _fold(self.top, str(self._head_index), str(self._head_index + 1))
        for module in self.modules():
            if isinstance(module, nn.ReLU6):
                module.inplace = True
        self._folded = True
        return self.to(memory_format=torch.channels_last)

    def forward(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) normalised crops -> (B, 1280, S / 32, S / 32)."""
        return self.run(self.top, self.run(self.stem, crops))

    def maps(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of whole photos at two strides, from one pass.

        Args:
            photo: (B, 3, H, W) normalised as crops are; H and W multiples of 32.

        Returns:
            (B, 120, H / 16, W / 16) and (B, 1280, H / 32, W / 32).
        """
        fine = self.run(self.top[: self.STRIDE_16_BLOCKS], self.run(self.stem, photo))
        return fine, self.run(self.top[self.STRIDE_16_BLOCKS :], fine)

    def run(self, part: nn.Sequential, x: Tensor) -> Tensor:
        """Apply `stem`, `top` or a slice of one; layers in one step with their activations if possible."""
        if not self._folded or not runs_fused(x):
            return cast(Tensor, part(x))
        turned = _may_turn(part, x)
        x = x.flip(2, 3) if turned else x
        modules = iter(part)
        for module in modules:
            if hasattr(module, "_depthwise_conv"):
                x = _run_block(module, x, turned)
            else:
                x = _convolve_padded(module, x, "relu6", turned=turned)
                next(modules), next(modules)  # its norm, which is folded, and its activation
        return x.flip(2, 3) if turned else x

    @property
    def _head_index(self) -> int:
        """Index of the head convolution in `top`; its norm and its activation follow."""
        return len(self.top) - 3


def _may_turn(part: nn.Sequential, x: Tensor) -> bool:
    """Whether some layer pads at the end only, and all of them would have sides that they halve exactly.

    The package pads such layers in a step of their own, which copies the picture. Turned by 180 degrees, the
    padding is at the beginning, where a convolution of stride 2 that is padded on both sides has all of its
    own: at the end it does not reach the padding. So the picture and the kernels are turned, and the copies
    are left out.
    """
    halved = [layer for layer in part.modules() if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1]
    uneven = any(isinstance(getattr(layer, "static_padding", None), nn.ZeroPad2d) for layer in halved)
    return uneven and all(side % 2 ** len(halved) == 0 for side in x.shape[2:])


def _run_block(block: Any, x: Tensor, turned: bool) -> Tensor:
    """One inverted bottleneck of EfficientNet-Lite, whose norms are folded into its convolutions."""
    inside = convolve(block._expand_conv, x, "relu6") if hasattr(block, "_expand_conv") else x
    inside = _convolve_padded(block._depthwise_conv, inside, "relu6", turned=turned)
    shape = block._block_args
    stays = block.id_skip and shape.stride in (1, [1]) and shape.input_filters == shape.output_filters
    return convolve(block._project_conv, inside, added=x if stays else None)


def _convolve_padded(layer: Any, x: Tensor, activation: Activation, *, turned: bool) -> Tensor:
    """`convolve` with the padding that the package's convolutions keep beside themselves.

    Args:
        turned: the picture is turned by 180 degrees, see `_may_turn`.
    """
    beside = getattr(layer, "static_padding", None)
    if not isinstance(beside, nn.ZeroPad2d):
        return convolve(layer, x, activation, weight=layer.weight.flip(2, 3) if turned else None)
    if not turned:
        return convolve(layer, beside(x), activation)
    _, right, _, bottom = beside.padding
    return convolve(layer, x, activation, weight=layer.weight.flip(2, 3), padding=(bottom, right))


def _fold(owner: nn.Module, conv: str, norm: str) -> None:
    convolution = cast(nn.Conv2d, owner.get_submodule(conv).eval())
    batch_norm = cast(nn.BatchNorm2d, owner.get_submodule(norm).eval())
    setattr(owner, conv, _with_own_padding(fuse_conv_bn_eval(convolution, batch_norm)))
    setattr(owner, norm, nn.Identity())


def _with_own_padding(conv: nn.Conv2d) -> nn.Conv2d:
    """Pad in the convolution, where the padding is even; the package pads in a step of its own."""
    pad = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = cast(tuple[int, int, int, int], pad)
    if (left, top) != (right, bottom):
        return conv
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        stride=cast(tuple[int, int], conv.stride),
        padding=(top, left),
        groups=conv.groups,
    )
    plain.load_state_dict(conv.state_dict())
    return plain
