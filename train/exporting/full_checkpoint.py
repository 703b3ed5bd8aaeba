"""Put a newly adapted CLIP into a complete OVSeg file, beside the segmenter that is in it already.

    python -m train.export --weights runs/prompt_tune --form full --into ovseg_full.pth --out new.pth
    python -m train.export --weights new.pth --form openai --out clip.pt        # and out again

Every number of both stays as it is stored, type included.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ovseg_demo.clip.checkpoints import PROMPTS
from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.maskformer.key_mapping import CLIP_PREFIX
from ovseg_demo.weight_files import entries_of, file_label, first_keys, read_file
from train.core.files import write_saved


def put_clip(clip: Mapping[str, Tensor], full: Path, out: Path) -> None:
    """Write a complete file whose CLIP is another one.

    Args:
        clip: the new CLIP, OpenAI's names, as stored; its mask prompts are taken whether the old one had some
            or not.
        full: the complete file.
        out: where the new one goes; may be `full`.

    Raises:
        CheckpointError: the file is not complete, or the new CLIP has other names or shapes than the old.
        OutputError: the file cannot be written.
    """
    content = read_file(full)
    old = entries_of(content, full)
    _check(clip, old, full)
    model: Any = OrderedDict()  # in the order of the file
    for key, value in old.items():
        name = key.removeprefix(CLIP_PREFIX)
        if name == key:
            model[key] = value
        elif name in clip:
            model[key] = clip[name]
    model.update({CLIP_PREFIX + name: value for name, value in clip.items()})
    # What else detectron2 puts into a file stays, the version metadata on the dictionary too.
    around = content if isinstance(content, dict) and isinstance(content.get("model"), dict) else None
    before = around["model"] if around else content
    if hasattr(before, "_metadata"):
        model._metadata = before._metadata
    write_saved(out, {**around, "model": model} if around else model)


def _check(clip: Mapping[str, Tensor], old: Mapping[str, object], full: Path) -> None:
    theirs = {
        key.removeprefix(CLIP_PREFIX): value for key, value in old.items() if key.startswith(CLIP_PREFIX)
    }
    if not theirs or len(theirs) == len(old):
        raise CheckpointError(
            f"{file_label(full)} is no complete OVSeg file: "
            f"it has no {'segmenter' if theirs else 'CLIP'} in it."
        )
    missing = [name for name in theirs if name not in clip and name != PROMPTS]
    unknown = [name for name in clip if name not in theirs and name != PROMPTS]
    if missing or unknown:
        faults = [
            f"{verb} {first_keys(keys)}" for verb, keys in (("lacks", missing), ("adds", unknown)) if keys
        ]
        raise CheckpointError(
            f"The new CLIP does not fit into {file_label(full)[4:]}: it {' and '.join(faults)}."
        )
    for name, value in clip.items():
        shape = getattr(theirs.get(name), "shape", value.shape)
        free = 1 if name == PROMPTS else 0  # the depth of the prompts
        if value.shape[free:] != shape[free:]:
            shapes = f"{tuple(value.shape)}, not {tuple(shape)}"
            raise CheckpointError(
                f"The new CLIP does not fit into {file_label(full)[4:]}: its {name} has shape {shapes}."
            )
