"""From region scores to a label map: which word each region gets, and which region each pixel.

evidence.py          scores and the two calibrated probabilities
default_rule.py      the default rule
published_rules.py   the paper's two rules
rules.py             a rule by its name
"""

from ovseg_demo.merging.default_rule import Merged, merge_default
from ovseg_demo.merging.evidence import (
    MergeSettings,
    Scores,
    log_odds,
    presence_evidence,
    probabilities,
)
from ovseg_demo.merging.rules import merge

__all__ = [
    "MergeSettings",
    "Merged",
    "Scores",
    "log_odds",
    "merge",
    "merge_default",
    "presence_evidence",
    "probabilities",
]
