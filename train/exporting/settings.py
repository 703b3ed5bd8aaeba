"""The options of the export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import SettingsError

LICENCE = (
    "Weights for research and education, non-commercial: the photos they were trained on belong to their "
    "owners, and the terms of the data sets and of the vanilla weights apply."
)


@dataclass(frozen=True)
class ExportSettings:
    """Export adapted weights: a folder for the demo, or one file in a published form."""

    weights: Path
    """Adapted weights: a checkpoint file, or the folder of a run."""
    out: Path
    """Folder to write; a file for the other forms."""
    form: Literal["demo", "openai", "ovseg", "full"] = "demo"
    """The demo's folder; OpenAI's flat dictionary; OVSeg's training checkpoint; the complete OVSeg file that
    --into names, with this CLIP in it."""
    into: Path | None = None
    """Complete OVSeg file that gives the segmenter (form full)."""
    with_vanilla: bool = True
    """Also put in the vanilla weights, so that the two can be compared (folder only)."""
    model: str = ""
    """The vanilla model; by default the one that the run began with."""
    metrics: tuple[Path, ...] = ()
    """JSON files of train.evaluate, for the card."""
    title: str = ""
    """Title of the card; by default the folder's name."""
    licence: str = LICENCE
    """Text on the licence in the card."""
    push_to_hub: str = ""
    """Repository of the model hub that the folder is uploaded to (OWNER/NAME)."""
    private: bool = False
    """Make that repository private if it is new."""

    def __post_init__(self) -> None:
        if self.push_to_hub and self.form != "demo":
            raise SettingsError(f"--push-to-hub uploads the demo's folder: leave out --form {self.form}.")
        if (self.form == "full") != (self.into is not None):
            raise SettingsError("--form full and --into FILE, the complete OVSeg file, belong together.")
        if self.push_to_hub and self.push_to_hub.count("/") != 1:
            raise SettingsError(f"--push-to-hub needs OWNER/NAME, not {self.push_to_hub!r}.")
