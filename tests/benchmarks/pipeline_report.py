"""Figures, table and picture of the pipeline benchmark, from the lines that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.machine import facts
from tests.benchmarks.plots import Bars, draw_bars
from tests.benchmarks.readme import measured, table
from tests.benchmarks.visits import RULES, Book, Line, Subject

GRIDS = ("grid16", "grid32")
STAGES = ("read", "propose", "crop", "embed", "text", "merge", "overlay")
DRAWS = 1000


def report(book: Book, subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """Everything the book says of these photos, in plain types."""
    ours = {key: line for key in subjects if (line := book.lines.get((key, "ours")))}
    lines = [line for key in subjects if (line := book.lines.get((key, "further")))]
    further = [line["seconds"] for line in lines]
    figures: dict[str, Any] = {
        "machine": facts(),
        "photos": {key: ours[key]["date"] for key in ours},
        "stages_s": {"ours": _stages(list(ours.values()))},
        "seconds": {"ours": _seconds(list(ours.values()))},
        "ratios": {},
        "miou": {},
    }
    for grid in GRIDS:
        pairs = [(ours[key], line) for key in ours if (line := book.lines.get((key, grid)))]
        if not pairs:
            continue
        theirs = [line for _, line in pairs]
        figures["stages_s"][grid], figures["seconds"][grid] = _stages(theirs), _seconds(theirs)
        figures["ratios"][f"first_run_vs_{grid}"] = _ratio(
            [b["wall"]["total"] / a["wall"]["total"] for a, b in pairs]
        )
        figures["ratios"][f"first_run_vs_{grid}_cpu"] = _ratio(
            [b["cpu"]["total"] / a["cpu"]["total"] for a, b in pairs]
        )
        figures["ratios"][f"first_run_vs_{grid}_in_one_run"] = sum(a["run"] == b["run"] for a, b in pairs)
        keys = [key for key in ours if (key, grid) in book.lines]
        figures["miou"][f"ours_vs_{grid}"] = accuracy(
            {key: (ours[key], book.lines[key, grid]) for key in keys}, subjects
        )
        for kind, taken, name in (("wall", "seconds", ""), ("cpu", "cpu_seconds", "_cpu")):
            words = [
                line[kind]["total"] / other[taken]["new_words"]
                for key in keys
                if (line := book.lines[key, grid]) and (other := book.lines.get((key, "further")))
            ]
            if words:
                figures["ratios"][f"new_words_vs_{grid}{name}"] = _ratio(words)
    if further:
        figures["ratios"] |= _further(further)
        of_all_threads = _further([line["cpu_seconds"] for line in lines])
        figures["ratios"] |= {f"{name}_cpu": value for name, value in of_all_threads.items()}
    for contender, photo in (("memory", "12 megapixels"), ("start", "page")):
        if line := book.lines.get((photo, contender)):
            figures[contender] = {
                key: value for key, value in line.items() if key not in ("photo", "contender")
            }
    return figures


def _stages(lines: list[Line]) -> dict[str, float]:
    """Median seconds on the wall by stage."""
    names = [name for name in STAGES if any(name in line["stages"] for line in lines)]
    return {
        name: round(float(np.median([line["stages"].get(name, 0.0) for line in lines])), 4) for name in names
    }


def _seconds(lines: list[Line]) -> dict[str, float]:
    return (
        {
            "photos": len(lines),
            "wall": round(float(np.median([line["wall"]["total"] for line in lines])), 3),
            "cpu": round(float(np.median([line["cpu"]["total"] for line in lines])), 3),
            "masks": float(np.median([line["masks"] for line in lines])),
            "load": float(np.median([line["load"] or 0 for line in lines])),
        }
        if lines
        else {}
    )


def _ratio(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
        "photos": len(values),
    }


def _further(seconds: list[dict[str, float]]) -> dict[str, float]:
    def median(top: str, bottom: str) -> float:
        return round(float(np.median([s[top] / s[bottom] for s in seconds])), 3)

    return {
        "new_words_vs_own_first_run": median("one_arm", "new_words"),
        "seen_words_vs_own_first_run": median("one_arm", "seen_words"),
        "both_arms": median("both_arms", "one_arm"),
        "names_1000_vs_10": median("names_1000", "names_10"),
        "names_1000_vs_10_same_photo": median("seen_words_1000", "seen_words"),
    }


def accuracy(pairs: Mapping[str, tuple[Line, Line]], subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """mIoU in percent of ours and the other on the same photos, by data set and rule, and their difference.

    The difference has the interval that holds it in 95 % of the draws of photos with replacement.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(subjects[key].truth.name for key in pairs):
        keys = [key for key in pairs if subjects[key].truth.name == name]
        classes = len(subjects[keys[0]].vocabulary)
        times = np.random.default_rng(0).multinomial(len(keys), np.full(len(keys), 1 / len(keys)), size=DRAWS)
        for rule in RULES:
            counts = np.stack(
                [[_dense(pairs[key][side]["counts"][rule], classes) for side in (0, 1)] for key in keys]
            )
            whole = [float(_miou(counts[:, side].sum(0))) for side in (0, 1)]
            drawn = np.einsum("bn,nscf->bscf", times, counts)
            gaps = [float(_miou(one[0]) - _miou(one[1])) for one in drawn]
            found[f"{name}_{rule}"] = {
                "photos": len(keys),
                "ours": round(whole[0], 1),
                "theirs": round(whole[1], 1),
                "difference": round(whole[0] - whole[1], 1),
                "interval": [round(float(v), 1) for v in np.percentile(gaps, (2.5, 97.5))],
            }
    for rule in RULES:
        rows = [row for name, row in found.items() if name.endswith(f"_{rule}")]
        found[f"mean_{rule}"] = {
            "photos": sum(row["photos"] for row in rows),
            "ours": round(float(np.mean([row["ours"] for row in rows])), 1),
            "theirs": round(float(np.mean([row["theirs"] for row in rows])), 1),
            "difference": round(float(np.mean([row["difference"] for row in rows])), 1),
        }
    return found


def _dense(counts: Line, classes: int) -> np.ndarray:
    """(C, 3) pixels right, true and predicted."""
    dense = np.zeros((classes, 3), dtype=np.int64)
    for c, values in counts.items():
        dense[int(c)] = values
    return dense


def _miou(counts: np.ndarray) -> float:
    """As ovseg_demo.evaluation.metrics has it: over the classes that truth or prediction show."""
    hits, truth, predicted = counts.T
    union = truth + predicted - hits
    return float(100 * np.mean(hits[union > 0] / union[union > 0])) if (union > 0).any() else float("nan")


def show(figures: Mapping[str, Any]) -> None:
    """The table on the terminal."""
    machine = figures["machine"]
    print(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date']}"
    )
    names = list(figures["stages_s"])
    print("median seconds".ljust(18) + "".join(name.rjust(12) for name in names))
    for stage in STAGES:
        values = [figures["stages_s"][name].get(stage) for name in names]
        if any(values):
            print(stage.ljust(18) + "".join(("-" if v is None else f"{v:.3f}").rjust(12) for v in values))
    for kind in ("wall", "cpu", "masks", "photos", "load"):
        values = [figures["seconds"][name].get(kind, float("nan")) for name in names]
        print(kind.ljust(18) + "".join(f"{v:.2f}".rjust(12) for v in values))
    for name, value in figures["ratios"].items():
        told = value
        if isinstance(value, dict):
            told = f"{value['median']} (from {value['least']} to {value['most']}, {value['photos']} photos)"
        print(f"{name:36} {told}")
    for versus, rows in figures["miou"].items():
        for name, row in rows.items():
            spread = f" {row['interval']}" if "interval" in row else ""
            print(
                f"mIoU {versus:15} {name:20} {row['ours']:5.1f} against {row['theirs']:5.1f}: "
                f"{row['difference']:+.1f}{spread}, {row['photos']} photos"
            )
    if "memory" in figures:
        print(f"peak memory, 12-megapixel photo: {figures['memory']['bytes'] / 1e9:.2f} GB")
    if "start" in figures:
        print(f"page interactive after {figures['start']['seconds']:.1f} s")


def markdown(figures: Mapping[str, Any], command: str) -> str:
    """The same for the README."""
    names = list(figures["stages_s"])
    stages = [
        [stage, *(f"{figures['stages_s'][name].get(stage, 0.0):.3f}" for name in names)]
        for stage in STAGES
        if any(stage in figures["stages_s"][name] for name in names)
    ]
    for kind, title in (
        ("wall", "all, seconds"),
        ("cpu", "all, CPU seconds"),
        ("masks", "masks"),
        ("photos", "photos"),
    ):
        stages.append([title, *(f"{figures['seconds'][name].get(kind, 0):.3g}" for name in names)])
    ratios = []
    for name, value in figures["ratios"].items():
        if isinstance(value, dict):
            ratios.append(
                [f"`{name}`", value["median"], f"{value['least']} to {value['most']}", value["photos"]]
            )
        elif not name.endswith("in_one_run"):
            ratios.append([f"`{name}`", value, "", ""])
    accuracies = [
        [
            versus.replace("_", " "),
            name.replace("_", ", "),
            row["ours"],
            row["theirs"],
            f"{row['difference']:+.1f}",
            " to ".join(map(str, row["interval"])) if "interval" in row else "",
            row["photos"],
        ]
        for versus, rows in figures["miou"].items()
        for name, row in rows.items()
    ]
    parts = [
        measured(command, figures["machine"]),
        table(["median seconds by stage", *names], stages),
        table(["ratio", "median", "range", "photos"], ratios),
        table(["mIoU", "set, merge rule", "ours", "theirs", "difference", "95 %", "photos"], accuracies),
    ]
    for grid in GRIDS:
        beside = figures["ratios"].get(f"first_run_vs_{grid}_in_one_run")
        if beside is not None and beside < figures["seconds"][grid]["photos"]:
            whole = figures["seconds"][grid]["photos"]
            parts.append(
                f"{grid}: {beside} of {whole} photos were measured in one run with ours; for the others "
                "ours was measured again later, after a change of code, weights or numbers."
            )
    if "memory" in figures:
        parts.append(
            f"Peak memory, 12-megapixel photo, both arms: {figures['memory']['bytes'] / 1e9:.2f} GB."
        )
    if "start" in figures:
        start = figures["start"]
        parts.append(
            f"Page interactive {start['seconds']:.1f} s after `python app.py` "
            f"({start['cpu']:.1f} CPU seconds, load {start['load']})."
        )
    return "\n\n".join(parts)


def chart(figures: Mapping[str, Any], path: Path) -> None:
    """Seconds by stage of each contender, and the ratios below, as a PNG."""
    rows = {
        name: [figures["stages_s"][name].get(stage, 0.0) for stage in STAGES] for name in figures["stages_s"]
    }
    machine = figures["machine"]
    below = f"median of photos, {machine['processor']}, {machine['threads']} threads, {machine['date']}"
    draw_bars(Bars("From photo and words to the overlay, seconds by stage", below, STAGES, rows), path)
