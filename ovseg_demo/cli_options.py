"""Commands and options of the command line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ovseg_demo.errors import SettingsError
from ovseg_demo.models import ALL, ARMS, BOTH, COMPARED, OF_MODEL
from ovseg_demo.output.export import EXPORTS
from ovseg_demo.settings import MERGE_RULES, TEMPLATE_SETS, Settings
from ovseg_demo.vocabulary import PRESETS

__all__ = ["parser"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def parser(settings: Settings) -> argparse.ArgumentParser:
    """The parser of all commands, with this machine's settings as defaults."""
    made = _Parser(prog="python -m ovseg_demo", description="Open-vocabulary segmentation of photos.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("models", help="list the models, their licences, and which are on this machine")
    segment = commands.add_parser(
        "segment",
        help="segment photos by words",
        description="Writes overlay.png, label_map.png and result.json for each photo: straight into DIR for "
        "one photo, into DIR/<photo>/ for several, with DIR/review.json: their doubtful regions, the most "
        "doubtful first. A photo that cannot be read is told, and the rest go on.",
    )
    _add_segment_options(segment, settings)
    remember = commands.add_parser(
        "remember",
        help="make a memory of corrected photos",
        description="Writes the named regions of corrected photos as examples, for segment --memory.",
    )
    add = remember.add_argument
    add(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="photo, or folder; those without corrections pass",
    )
    add("--corrections", required=True, metavar="FILE|DIR", help="corrected regions, as for segment")
    add("--out", default="memory.safetensors", metavar="FILE", help="(default: %(default)s)")
    add("--model", default=settings.model, metavar="NAME", help="as for segment (default: %(default)s)")
    add("--device", default=settings.device, metavar="DEVICE", help="as for segment (default: %(default)s)")
    return made


def _add_segment_options(segment: argparse.ArgumentParser, settings: Settings) -> None:
    add, arms = segment.add_argument, ARMS.values()
    add("photos", nargs="+", metavar="PHOTO", help="photo, or folder of photos")
    add(
        "--vocabulary",
        default="",
        metavar="TEXT|@FILE|preset:NAME",
        help='names parted by commas or lines, synonyms by a bar: "dog, sofa | couch"; '
        f"presets: {', '.join(PRESETS)} (default: the names of --memory or --corrections)",
    )
    add("--memory", metavar="FILE", help="memory.safetensors: regions alike to its examples get their names")
    add(
        "--corrections",
        metavar="FILE|DIR",
        help="corrected regions that lie over the result: corrections.json, result.json, COCO's JSON or a "
        "label map with classes.json beside it; for several photos a folder with PHOTO.json or the results "
        "folder PHOTO/ of each",
    )
    add("--prompts", metavar="FILE", help="taught mask prompts (train.teach): they are the arm yours")
    add("--out", required=True, metavar="DIR", help="folder for the results")
    add(
        "--model",
        default=settings.model,
        metavar="NAME",
        help="name, file or folder, open_clip:MODEL/WEIGHTS or hf-hub:OWNER/NAME (default: %(default)s)",
    )
    add(
        "--weights",
        nargs="+",
        default=[],
        metavar="ARM",
        help=f"which arms of the model name the regions: {'; '.join(f'{a.name} ({a.about})' for a in arms)}; "
        f"{BOTH} ({' and '.join(COMPARED)}) or {ALL}; of another model with {OF_MODEL}MODEL behind it, "
        f"such as context{OF_MODEL}clip-vit-b-16. The last of several is the main result, the others get "
        "folders of their own beside it, and two are compared (default: the best arm of the model)",
    )
    # argparse reads a percent sign as the start of one of its own names.
    usual = settings.proposer.replace("%", "%%")
    add(
        "--proposer",
        metavar="NAME",
        help="of masks: a name, the file of a SAM or of all of OVSeg, or the folder of a SAM 2.1 (default: "
        f"the one the model was published with, or {usual})",
    )
    add("--merge", default=settings.merge, choices=MERGE_RULES, help="(default: %(default)s)")
    add(
        "--ensemble",
        type=float,
        default=settings.ensemble,
        metavar="SHARE",
        help="share of CLIP, 0 to 1, beside a proposer that names its masks itself (maskformer), with "
        "--merge benchmark or published-demo; 0 = CLIP alone (default: %(default)s)",
    )
    add(
        "--mask-threshold",
        type=float,
        default=settings.mask_threshold,
        metavar="SHARE",
        help="where maskformer's soft masks end, 0 to 1 (default: %(default)s)",
    )
    add("--templates", default=settings.templates, choices=TEMPLATE_SETS, help="(default: %(default)s)")
    add("--device", default=settings.device, help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--formats", default="", metavar="A,B", help=f"further files: {', '.join(EXPORTS)}")
    add(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="this process, or a Ray cluster for folders too large for one machine (default: %(default)s)",
    )
    add("--workers", type=int, default=1, metavar="N", help="of the Ray cluster (default: %(default)s)")
    add("--debug", action="store_true", help="show where an error came from")
