"""The segmenter of OVSeg: a Swin MaskFormer whose queries live in CLIP's text space.

names.py     which published weight is which of transformers'
shape.py     the architecture, read off the shapes
network.py   the network, made of transformers' modules
weights.py   a file to a network that holds its weights
proposer.py  the network as a proposer
"""

from ovseg_demo.proposals.maskformer.proposer import DEMO_THRESHOLD, MaskFormerProposer, load_maskformer

__all__ = ["DEMO_THRESHOLD", "MaskFormerProposer", "load_maskformer"]
