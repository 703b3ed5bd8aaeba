"""The ResNet of OVSeg's small segmenter (R101c), made of timm's modules.

DeepLab's form: a stem of three 3 x 3 convolutions, the stride in a block's 3 x 3 convolution, and in the last
stage dilations of 1, 2 and 4.
"""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from transformers.modeling_outputs import BackboneOutput

from ovseg_demo.proposals.maskformer.config import LAST_DILATIONS, DeepLabResNetConfig


class DeepLabResNet(nn.Module):
    """A ResNet that gives the output of each stage, as a backbone of transformers does.

    Args:
        config: its sizes.
    """

    def __init__(self, config: DeepLabResNetConfig) -> None:
        super().__init__()
        self.resnet = ResNet(
            Bottleneck,  # type: ignore[arg-type]  # the class, which timm annotates as an instance
            config.depths,
            stem_type="deep",
            stem_width=config.stem_width,
            channels=config.channels,
            num_classes=0,
            global_pool="",
        )
        last: Any = self.resnet.layer4
        for block, dilation in zip(last, LAST_DILATIONS, strict=True):
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)

    def forward(self, pixels: Tensor) -> BackboneOutput:
        """(1, 3, H, W) -> maps of strides 4, 8, 16 and 32."""
        net: Any = self.resnet
        features = net.maxpool(net.act1(net.bn1(net.conv1(pixels))))
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            features = stage(features)
            maps.append(features)
        return BackboneOutput(feature_maps=tuple(maps))
