"""Teaching: mask prompts that are tuned on a person's corrections, the paper's cheapest cure.

Every weight of CLIP stays as it is; what is learned is 3 x 49 x 192 numbers, a file of about 100 KB.
"""

from ovseg_demo.teaching.crops import Lessons, TeachStep
from ovseg_demo.teaching.lessons import LEAST_REGIONS, Lesson, read_lessons
from ovseg_demo.teaching.prompts_file import TaughtPrompts
from ovseg_demo.teaching.tuning import teach

__all__ = ["LEAST_REGIONS", "Lesson", "Lessons", "TaughtPrompts", "TeachStep", "read_lessons", "teach"]
