"""Names of CLIP models outside the table: any model of open_clip, by name, repository or folder.

    open_clip:ViT-B-16/laion2b_s34b_b88k     an architecture of open_clip and one of its weights
    open_clip:ViT-B-16/my/weights.pt         the same architecture with a file of weights
    hf-hub:timm/PE-Core-B-16                 a repository of the model hub with open_clip_config.json
    my/folder                                a folder with open_clip_config.json (local-dir:my/folder)

Repositories and folders of the transformers library's CLIP (config.json) are read too, as TinyCLIP is
published in that form.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ovseg_demo.errors import UnknownModelError, quoted
from ovseg_demo.models.hub import exists, is_file

__all__ = ["CONFIGS", "OpenClipName", "is_open_clip", "parse_open_clip"]

TAGGED, HUB, FOLDER = "open_clip:", "hf-hub:", "local-dir:"
CONFIGS = ("open_clip_config.json", "config.json")
"""Files of which a repository or folder has one, the first that is there counts."""


@dataclass(frozen=True)
class OpenClipName:
    """Where a model comes from; of `architecture`, `repository` and `folder` one is given."""

    name: str
    """As it was asked for."""
    architecture: str = ""
    tag: str = ""
    """Weights of the architecture that open_clip knows."""
    file: Path | None = None
    """Weights of the architecture on this machine."""
    repository: str = ""
    folder: Path | None = None


def is_open_clip(name: str | Path) -> bool:
    """Whether a name means a model of open_clip; nothing is fetched or loaded."""
    text = str(name)
    if text.startswith((TAGGED, HUB, FOLDER)):
        return True
    return any(is_file(Path(text) / config) for config in CONFIGS) and not _is_mini(Path(text))


def parse_open_clip(name: str | Path) -> OpenClipName:
    """Read a name for which `is_open_clip` is true.

    Raises:
        UnknownModelError: there is no such architecture, weights, file or folder; the nearest are offered.
    """
    text = str(name)
    if text.startswith(HUB):
        repository = text.removeprefix(HUB)
        if repository.count("/") != 1 or not all(repository.split("/")):
            raise UnknownModelError(f"{quoted(text)} names no repository: write hf-hub:OWNER/NAME.")
        return OpenClipName(text, repository=repository)
    if not text.startswith(TAGGED):
        folder = Path(text.removeprefix(FOLDER))
        if not any(is_file(folder / config) for config in CONFIGS):
            raise UnknownModelError(f"The folder {quoted(folder, 200)} has no {CONFIGS[0]}; give another.")
        return OpenClipName(text, folder=folder)
    return _tagged(text)


def _tagged(text: str) -> OpenClipName:
    import open_clip

    architecture, _, weights = text.removeprefix(TAGGED).partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        raise UnknownModelError(
            f"open_clip has no model {quoted(architecture)}; {_nearest(architecture, known)}."
        )
    if weights and is_file(Path(weights)):
        return OpenClipName(text, architecture=architecture, file=Path(weights))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights.lower().replace("-", "_") in tags:
        return OpenClipName(text, architecture=architecture, tag=weights)
    wanted = f"weights {quoted(weights, 200)}" if weights else "weights chosen"
    rest = _nearest(weights, tags) if tags else "it has none, so give a file of weights"
    raise UnknownModelError(
        f"{TAGGED}{architecture} has no {wanted}; {rest} (written {TAGGED}{architecture}/WEIGHTS)."
    )


def _nearest(name: str, known: list[str]) -> str:
    folded = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    return f"the nearest are {', '.join(folded[item] for item in close or list(folded)[:3])}"


def _is_mini(folder: Path) -> bool:
    """An ovseg-mini has a config.json of its own, and its arms as files."""
    return exists(folder / "vanilla.safetensors") or exists(folder / "adapted.safetensors")
