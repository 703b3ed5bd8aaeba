"""The table of models: where each one's weights come from, how large they are, and what their licence allows.

    table.py     what exists: models and arms
    arms.py      which arms a model has
    local.py     a name to a checked file on this machine
    hub.py       downloads
    listing.py   the printed table

Weights lie in this repository or in the package built from it (`EmbeddedFile`), came with another package
(`PackagedFile`), are fetched from the model hub when first asked for (`HubFile`), or are put into their
folder by a person (`HandFile`). Every file is hashed before its path is handed out.
"""

from ovseg_demo.models.arms import ALL, BOTH, arms_of, chosen_arms, compared_arms, default_arm
from ovseg_demo.models.hub import exists, is_file
from ovseg_demo.models.listing import ModelRow, describe, rows
from ovseg_demo.models.local import LocalWeights, resolve
from ovseg_demo.models.table import (
    ARMS,
    COMPARED,
    MODELS,
    VANILLA,
    ArmEntry,
    EmbeddedFile,
    HandFile,
    ModelEntry,
    PackagedFile,
)

__all__ = [
    "ALL",
    "ARMS",
    "BOTH",
    "COMPARED",
    "MODELS",
    "VANILLA",
    "ArmEntry",
    "EmbeddedFile",
    "HandFile",
    "LocalWeights",
    "ModelEntry",
    "ModelRow",
    "PackagedFile",
    "arms_of",
    "chosen_arms",
    "compared_arms",
    "default_arm",
    "describe",
    "exists",
    "is_file",
    "resolve",
    "rows",
]
