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
from ovseg_demo.corrections.importing import (
    corrections_from_coco,
    corrections_from_content,
    corrections_from_label_map,
    find_corrections,
    read_corrections,
)
from ovseg_demo.corrections.review import Doubt, review_order

__all__ = [
    "MAX_CORRECTIONS",
    "CorrectedRegion",
    "Doubt",
    "apply_corrections",
    "correction_name",
    "corrections_from_coco",
    "corrections_from_content",
    "corrections_from_json",
    "corrections_from_label_map",
    "corrections_to_json",
    "find_corrections",
    "joined_vocabulary",
    "read_corrections",
    "review_order",
]
