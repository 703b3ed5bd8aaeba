"""MaskFormers: the segmenter of OVSeg, whose queries live in CLIP's text space, and the one of COCO.

key_mapping.py  which published weight is which of transformers'
config.py       the architecture, read off the shapes
resnet.py       the backbone of the small published system
network.py      the network, made of transformers' modules
weights.py      a complete OVSeg file to a network that holds its weights
proposer.py     the network as a proposer
coco.py         transformers' own weights as a source of masks without names
"""

from ovseg_demo.proposals.maskformer.coco import load_coco_maskformer
from ovseg_demo.proposals.maskformer.proposer import DEMO_THRESHOLD, MaskFormerProposer, load_maskformer

__all__ = ["DEMO_THRESHOLD", "MaskFormerProposer", "load_coco_maskformer", "load_maskformer"]
