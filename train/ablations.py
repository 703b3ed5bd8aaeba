"""The paper's ablations at the size of this machine, each beside the paper's own figure.

    python -m train.ablations masking
    python -m train.ablations depth --pairs runs/pairs
    python -m train.ablations order --pairs runs/pairs
    python -m train.ablations supervision --pairs runs/pairs --true-pairs runs/true_pairs
    python -m train.ablations captions --pairs runs/pairs --one-caption runs/pairs_1cap

Ours: percent of true regions named right (msrc21 and COCO val2017, never trained on), mean over the seeds.
The paper's: mIoU on ADE20K-150 with ViT-L/14. The two scales differ; what is to be compared is which row of a
table is better, and by how much of the gain.

Runs are kept in --work and not repeated; the stem features of pairs and regions are computed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ovseg_demo.clip import load_clip
from ovseg_demo.errors import SettingsError
from train.core.files import write_bytes
from train.core.options import DEFAULT_DATA, run_command
from train.data.pair_folder import PairFolder
from train.evaluation.region_accuracy import RegionAccuracy, RegionEvaluator
from train.finetune import FinetuneSettings, finetune
from train.mining.synonyms import coco_category
from train.prompt_tune import PromptTuneSettings, prompt_tune

Folders = tuple[Path, ...]
Name = Literal["depth", "order", "supervision", "captions", "masking"]


@dataclass(frozen=True)
class AblationSettings:
    """Run one of the paper's ablations (see train/README.md)."""

    name: Name
    """depth of the prompts; order of FT and MPT; supervision: true masks or mined nouns; captions: one or
    five; masking of the crops for vanilla."""
    pairs: tuple[Path, ...] = (Path("runs/pairs"),)
    """Folders of pairs mined with five captions a photo."""
    one_caption: tuple[Path, ...] = (Path("runs/pairs_1cap"),)
    """Folders of pairs mined with one caption a photo."""
    true_pairs: tuple[Path, ...] = (Path("runs/true_pairs"),)
    """Folders of pairs from true masks."""
    least_score: float = 0.0
    """Mined pairs of a lower confidence are left out."""
    model: str = "ovseg-mini"
    """The vanilla model."""
    recipe: Literal["mini", "vit-b-16", "vit-l-14"] = "mini"
    """Whose numbers are used."""
    epochs: float = 3.0
    """Passes over the (capped) pairs in each run."""
    same_pairs: int = 0
    """Steps of every run as if there were so many pairs, for a comparison of equals; 0 = by all pairs."""
    seeds: int = 1
    """Runs of each row; their mean is shown."""
    sets: tuple[str, ...] = ("msrc21", "coco-val")
    """Data sets with true masks that are asked."""
    photos: int = 0
    """Only the first so many photos of each; 0 = all."""
    work: Path = Path("runs/ablations")
    """Folder for the runs."""
    data: Path = DEFAULT_DATA
    """Folder that holds the data folders."""
    json: Path | None = None
    """Write the table here as well."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.epochs <= 0:
            raise SettingsError(f"--seeds {self.seeds} and --epochs {self.epochs:g} must be above 0.")


@dataclass(frozen=True)
class Row:
    """One row of a table: what was done, our figures by column, and the paper's."""

    title: str
    ours: dict[str, float]
    paper: float | None
    """mIoU on ADE20K-150."""


class AblationRunner:
    """Run the trainings of the tables, each only once, and evaluate their weights."""

    def __init__(self, settings: AblationSettings) -> None:
        self.settings = settings
        keep = settings.work / "kept"
        self.sets = [
            RegionEvaluator(name, settings.data, photos=settings.photos, keep=keep) for name in settings.sets
        ]

    def shared(self, pairs: Folders, seed: int) -> dict[str, Any]:
        """What all runs have in common."""
        settings = self.settings
        return {
            "pairs": pairs,
            "least_score": settings.least_score,
            "model": settings.model,
            "recipe": settings.recipe,
            "epochs": settings.epochs,
            "keep": settings.work / "kept",
            "seed": seed,
            "steps": self.equal_steps(pairs) if settings.same_pairs else 0,
        }

    def equal_steps(self, pairs: Folders) -> int:
        """Steps that show `same_pairs` pairs as often as --epochs says."""
        batch = FinetuneSettings(pairs, recipe=self.settings.recipe).filled().batch or 1
        return max(round(self.settings.epochs * self.settings.same_pairs / batch), 1)

    def prompt_tuned(
        self, title: str, pairs: Folders, seed: int, start: Path | None = None, depth: int = 3
    ) -> Path:
        """The folder of prompts tuned on these pairs."""
        out = self.folder(title, seed)
        prompt_tune(PromptTuneSettings(out=out, start=start, depth=depth, **self.shared(pairs, seed)))
        return out

    def finetuned(
        self, title: str, pairs: Folders, seed: int, start: Path | None = None, prompt_depth: int = 0
    ) -> Path:
        """The folder of a tower fine-tuned on these pairs."""
        out = self.folder(title, seed)
        shared = self.shared(pairs, seed)
        finetune(FinetuneSettings(out=out, start=start, prompt_depth=prompt_depth, **shared))
        return out

    def folder(self, title: str, seed: int) -> Path:
        """The folder of a run; its name depends on the settings."""
        chosen = self.settings
        about = f"{Path(chosen.model).name}_{chosen.epochs:g}_{chosen.least_score:g}_{chosen.same_pairs}"
        return chosen.work / f"{title}_{about}_{seed}"

    def evaluate(self, weights: Path | None, *, masked: bool = True) -> dict[str, RegionAccuracy]:
        """Accuracy on the true regions, by data set; None evaluates the vanilla model."""
        arm: Literal["vanilla", "adapted"] = "adapted" if weights else "vanilla"
        clip = load_clip(weights or self.settings.model, weights=arm)
        return {one.name: one.evaluate(clip, masked=masked) for one in self.sets}

    def row(
        self,
        title: str,
        paper: float | None,
        make: Callable[[int], Path | None],
        *,
        masked: bool = True,
        split: Folders | None = None,
    ) -> Row:
        """A row from the runs of all seeds; `split` parts the classes by whether these pairs have them."""
        accuracies = [self.evaluate(make(seed), masked=masked) for seed in range(self.settings.seeds)]
        columns: dict[str, list[float]] = {}
        for accuracy in accuracies:
            for one in self.sets:
                named = accuracy[one.name]
                columns.setdefault(f"{one.name} top-1", []).append(named.top1())
                columns.setdefault(f"{one.name} per class", []).append(named.per_class())
                if split is not None:
                    for group, classes in known_and_new(one.truth.classes, PairFolder(*split).nouns).items():
                        columns.setdefault(f"{one.name} {group}", []).append(named.top1(classes))
        return Row(title, {name: float(np.mean(values)) for name, values in columns.items()}, paper)


def known_and_new(classes: Sequence[str], fixed: Sequence[str]) -> dict[str, list[int]]:
    """Classes that the fixed names hold, under any of their words, and the others."""
    known = [i for i, name in enumerate(classes) if name in fixed or coco_category(name, fixed) in fixed]
    return {"known": known, "new": [i for i in range(len(classes)) if i not in known]}


# --- the tables -------------------------------------------------------------------------------------------


def depth(runner: AblationRunner) -> list[Row]:
    """How many times tokens are replaced."""
    pairs = runner.settings.pairs
    rows = [runner.row("vanilla", 21.8, lambda seed: None)]
    for levels, alone, over in ((1, 25.7, 29.3), (3, 26.5, 29.6), (6, 26.8, 29.4)):

        def on_vanilla(seed: int, levels: int = levels) -> Path:
            return runner.prompt_tuned(f"mpt{levels}", pairs, seed, depth=levels)

        def on_finetuned(seed: int, levels: int = levels) -> Path:
            start = runner.finetuned("ft", pairs, seed)
            return runner.prompt_tuned(f"ft_mpt{levels}", pairs, seed, start=start, depth=levels)

        rows.append(runner.row(f"MPT, depth {levels}", alone, on_vanilla))
        rows.append(runner.row(f"FT, then MPT of depth {levels}", over, on_finetuned))
    return rows


def order(runner: AblationRunner) -> list[Row]:
    """FT and MPT alone, one after the other, and together."""
    pairs = runner.settings.pairs

    def then_prompts(seed: int) -> Path:
        return runner.prompt_tuned("ft_mpt3", pairs, seed, start=runner.finetuned("ft", pairs, seed))

    def then_tower(seed: int) -> Path:
        return runner.finetuned("mpt3_ft", pairs, seed, start=runner.prompt_tuned("mpt3", pairs, seed))

    return [
        runner.row("vanilla", 21.8, lambda seed: None),
        runner.row("MPT", 26.5, lambda seed: runner.prompt_tuned("mpt3", pairs, seed)),
        runner.row("FT", 28.8, lambda seed: runner.finetuned("ft", pairs, seed)),
        runner.row("FT, then MPT", 29.6, then_prompts),
        runner.row("MPT, then FT", 28.1, then_tower),
        runner.row("together", 29.0, lambda seed: runner.finetuned("both", pairs, seed, prompt_depth=3)),
    ]


def supervision(runner: AblationRunner) -> list[Row]:
    """True masks with fixed names against mined nouns; "known" classes are those the fixed names hold."""
    fixed, mined = runner.settings.true_pairs, runner.settings.pairs
    return [
        runner.row("vanilla", 21.8, lambda seed: None, split=fixed),
        runner.row(
            "true masks, fixed names", 23.0, lambda s: runner.finetuned("ft_true", fixed, s), split=fixed
        ),
        runner.row("mined nouns", 28.8, lambda s: runner.finetuned("ft", mined, s), split=fixed),
    ]


def captions(runner: AblationRunner) -> list[Row]:
    """Nouns of one caption a photo against five."""
    one, five = runner.settings.one_caption, runner.settings.pairs
    return [
        runner.row("vanilla", 21.8, lambda seed: None),
        runner.row("one caption", 28.8, lambda seed: runner.finetuned("ft_1cap", one, seed)),
        runner.row("five captions", 28.6, lambda seed: runner.finetuned("ft", five, seed)),
    ]


def masking(runner: AblationRunner) -> list[Row]:
    """Vanilla CLIP on true regions with and without their background."""
    alone = AblationRunner(replace(runner.settings, seeds=1))
    return [
        alone.row("background painted over", 20.1, lambda seed: None),
        alone.row("rectangle as it is", 13.8, lambda seed: None, masked=False),
    ]


TABLES: dict[Name, Callable[[AblationRunner], list[Row]]] = {
    "depth": depth,
    "order": order,
    "supervision": supervision,
    "captions": captions,
    "masking": masking,
}


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, ours and the paper's side by side, with each row's gain over the first."""
    names = list(rows[0].ours)
    lines = [f"| | {' | '.join(names)} | paper, ADE20K-150 mIoU |", f"|---|{'---|' * (len(names) + 1)}"]
    for row in rows:
        cells = [_cell(row.ours[name], rows[0].ours[name], row is rows[0]) for name in names]
        paper = _cell(row.paper, rows[0].paper, row is rows[0])
        lines.append(f"| {row.title} | {' | '.join(cells)} | {paper} |")
    return "\n".join(lines)


def _cell(value: float | None, base: float | None, first: bool) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.1f}" if first or base is None else f"{value:.1f} ({value - base:+.1f})"


def main(settings: AblationSettings) -> None:
    """Make the runs and print the table."""
    rows = TABLES[settings.name](AblationRunner(settings))
    print(table(rows))
    if settings.json:
        content = {
            "settings": {k: str(v) for k, v in asdict(settings).items()},
            "rows": list(map(asdict, rows)),
        }
        write_bytes(settings.json, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    import sys

    # The name may stand alone in front: `python -m train.ablations depth`.
    argv = sys.argv[1:]
    if argv and not argv[0].startswith("-"):
        argv = ["--name", *argv]
    run_command(main, AblationSettings, prog="train.ablations", argv=argv)
