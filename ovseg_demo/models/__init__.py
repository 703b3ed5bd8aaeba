"""The table of models: where each one's weights come from, how large they are, and what their licence allows.

    table.py     what exists: models and arms
    arms.py      which arms a model has
    local.py     a name to a checked file on this machine
    open_clip_names.py   names of models outside the table: all of open_clip
    unpinned.py          which of them, and of SAM 2.1, lists show
    hub.py       downloads
    listing.py   the printed table

Weights lie in this repository or in the package built from it (`EmbeddedFile`), came with another package
(`PackagedFile`), are fetched from the model hub when first asked for (`HubFile`), or are put into their
folder by a person (`ManualFile`). Every file is hashed before its path is handed out.
"""

from ovseg_demo.models.arms import (
    ALL,
    BOTH,
    OF_MODEL,
    TAUGHT,
    YOURS,
    arm_of,
    arms_of,
    check_listed,
    chosen_arms,
    compared_arms,
    default_arm,
    is_mini,
    listed_arms,
    listed_names,
    own_arms,
    split_arm,
)
from ovseg_demo.models.hub import NotOnHubError, exists, fetch_current, is_file
from ovseg_demo.models.listing import ModelRow, describe, rows
from ovseg_demo.models.local import LocalWeights, resolve
from ovseg_demo.models.open_clip_names import OpenClipName, is_open_clip, parse_open_clip
from ovseg_demo.models.table import (
    ARMS,
    COMPARED,
    MODELS,
    VANILLA,
    ArmEntry,
    EmbeddedFile,
    ManualFile,
    ModelEntry,
    PackagedFile,
)
from ovseg_demo.models.unpinned import OPEN_CLIP_MODELS, SAM2_MODELS, UNPINNED, UnpinnedModel

__all__ = [
    "ALL",
    "ARMS",
    "BOTH",
    "COMPARED",
    "MODELS",
    "OF_MODEL",
    "OPEN_CLIP_MODELS",
    "SAM2_MODELS",
    "TAUGHT",
    "UNPINNED",
    "VANILLA",
    "YOURS",
    "ArmEntry",
    "EmbeddedFile",
    "LocalWeights",
    "ManualFile",
    "ModelEntry",
    "ModelRow",
    "NotOnHubError",
    "OpenClipName",
    "PackagedFile",
    "UnpinnedModel",
    "arm_of",
    "arms_of",
    "check_listed",
    "chosen_arms",
    "compared_arms",
    "default_arm",
    "describe",
    "exists",
    "fetch_current",
    "is_file",
    "is_mini",
    "is_open_clip",
    "listed_arms",
    "listed_names",
    "own_arms",
    "parse_open_clip",
    "resolve",
    "rows",
    "split_arm",
]
