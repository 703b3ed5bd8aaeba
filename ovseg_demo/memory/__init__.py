"""A person's memory: regions that were corrected once, as examples for the next photos.

memory = segmenter.remember(photo, corrections)
result = segmenter("next.jpg", "Rex, grass", memory=memory)
"""

from ovseg_demo.memory.evidence import (
    MemorySettings,
    lacks_of,
    memory_evidence,
    with_nearest_examples,
)
from ovseg_demo.memory.examples import MAX_EXAMPLES, Example, Memory
from ovseg_demo.memory.thumbnails import thumbnail

__all__ = [
    "MAX_EXAMPLES",
    "Example",
    "Memory",
    "MemorySettings",
    "lacks_of",
    "memory_evidence",
    "thumbnail",
    "with_nearest_examples",
]
