"""Corrections: what a person says of regions of one photo, as an ordered list that lies over the result.

region = CorrectedRegion.of(mask, "dog")
result = segmenter(photo, "dog, grass", corrections=[region])
"""

from ovseg_demo.corrections.applying import apply_corrections, joined_vocabulary
from ovseg_demo.corrections.corrected_region import (
    MAX_CORRECTIONS,
    CorrectedRegion,
    correction_name,
    corrections_from_json,
    corrections_to_json,
)

__all__ = [
    "MAX_CORRECTIONS",
    "CorrectedRegion",
    "apply_corrections",
    "correction_name",
    "corrections_from_json",
    "corrections_to_json",
    "joined_vocabulary",
]
