"""From captions to region-noun pairs (the paper's section 3.2), step by step.

photos -> proposals -> features -> pairs -> shards; `train/mine_pairs.py` is the command.
"""
