"""The model card of exported weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.core.run_record import photos_of, run_history
from train.data.sources import DataError

ABOUT_DATA = {
    "flickr8k": "Flickr8k (Hodosh, Young, Hockenmaier, JAIR 47, 2013), train and val",
    "coco_captions": "COCO Captions, train2017 (Lin et al., ECCV 2014; annotations CC BY 4.0)",
    "coco-train": "true masks of COCO train2017 (Lin et al., ECCV 2014; annotations CC BY 4.0)",
    "coco-train-official": "true masks of COCO train2017 (Lin et al., ECCV 2014; annotations CC BY 4.0)",
    "food_photos": "food photos of public domain, CC BY and CC BY-SA",
}
"""What a source of pairs is and whose, where this project knows it."""


@dataclass(frozen=True)
class CardFacts:
    """What the card tells.

    Attributes:
        title: of the model.
        kind: one sentence about the architecture.
        files: name and sha256 of each file of weights.
        record: from `run_record.read_record`, None if nothing is known of the training.
        reports: JSON of `train.evaluate`.
        licence: a sentence.
    """

    title: str
    kind: str
    files: Mapping[str, str]
    record: dict[str, Any] | None
    reports: Sequence[dict[str, Any]]
    licence: str


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The JSON files of evaluations.

    Raises:
        DataError: a file is missing or is not one.
    """
    reports = []
    for path in paths:
        try:
            content = json.loads(path.read_text("utf-8"))
            content["data_set"], content["arms"], content["settings"]["masks"]
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from None
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is not what train.evaluate --json writes.") from None
        reports.append(content)
    return reports


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    parts = [
        "---\nlicense: other\ntags:\n- open-vocabulary-segmentation\n- mask-adapted-clip\n- ovseg\n---",
        f"# {facts.title}",
        f"{facts.kind} Adapted to masked regions as in *Open-Vocabulary Semantic Segmentation with "
        "Mask-adapted CLIP* (arXiv 2210.04150), by the scripts of ovseg-demo.",
        "    python -m ovseg_demo segment photo.jpg --model FOLDER --vocabulary 'dog, grass' --out result/",
        "## Files\n\n| file | sha256 |\n|---|---|\n"
        + "\n".join(f"| `{name}` | `{digest}` |" for name, digest in facts.files.items()),
        "## Made by\n\n" + _made_by(facts.record),
        "## Trained on\n\n" + _trained_on(facts.record),
        "## Measured\n\n" + _measured(facts.reports),
        f"## Licence\n\n{facts.licence}",
    ]
    return "\n\n".join(parts) + "\n"


def _made_by(record: dict[str, Any] | None) -> str:
    runs = run_history(record)
    if not runs:
        return "Nothing is recorded of how these weights were made."
    lines = [f"From the vanilla weights of `{runs[0]['model']}`:", ""]
    lines += [f"    {run['command']}" for run in runs]
    for run in runs:
        numbers = run["settings"]
        shown = ("recipe", "rate", "batch", "epochs", "steps", "weight_decay", "warmup", "distil", "seed")
        told = ", ".join(f"{name.replace('_', ' ')} {numbers[name]}" for name in shown if name in numbers)
        lines += ["", f"`{run['command'].split()[2]}` (version {run['version']}): {told}."]
    return "\n".join(lines)


def _trained_on(record: dict[str, Any] | None) -> str:
    runs = run_history(record)
    if not runs:
        return "Nothing is recorded of the photos."
    photos = photos_of(runs)
    lines = [f"- {ABOUT_DATA.get(name, name)}: {count:,} photos" for name, count in photos.items()]
    pairs = {tuple(one["sha256"]): one["pairs"] for run in runs for one in run["pairs"]}
    return "\n".join([*lines, "", f"{sum(pairs.values()):,} region-noun pairs in all."])


def _measured(reports: Sequence[dict[str, Any]]) -> str:
    if not reports:
        return "Not yet; see `python -m train.evaluate`."
    lines = ["| data | masks | merge | arm | mIoU | 95 % | top-1 |", "|---|---|---|---|---|---|---|"]
    for report in reports:
        chosen = report["settings"]
        for arm, figures in report["arms"].items():
            low, high = figures.get("intervals", {}).get("miou", (None, None))
            reach = "" if low is None else f"{low:.1f} to {high:.1f}"
            top1 = f"{figures['top1']:.1f}" if "top1" in figures else ""
            about = f"{report['data_set']}, {report.get('photos', '?')} photos"
            lines.append(
                f"| {about} | {chosen['masks']} | {chosen.get('merge', '')} | {arm} "
                f"| {figures['miou']:.1f} | {reach} | {top1} |"
            )
    return "\n".join([*lines, "", "Percent; `python -m train.evaluate` with the same options prints them."])
