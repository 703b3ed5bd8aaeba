"""Free words: how many overlays a stranger would call sensible, with words that are there and that are not.

    python -m train.free_words --arms vanilla adapted --json free_words.json

Protocol. Photos are those of fold 0 of named_regions, which nothing is trained on. Each is asked for up to
ten natural names of its own, the first names of its named regions, and for five names of other photos, typed
together in one vocabulary. The names are drawn by the photo's path and the seed, the same for every arm,
model and machine.

    right names of a pixel  those of the smallest named region over it, of what that is a part of, and of the
                            larger region over it that carries a name of this thing
    counted                 pixels for which at least one typed name is right
    sensible                a photo of which at least 75 % of the counted pixels have a right name

"pixels right" is the mean over photos of that share; "strays" are pixels that are coloured though they lie
in a named region for which nothing typed is right.
"""

from __future__ import annotations

import json

from train.core.files import write_text
from train.core.options import run_command
from train.evaluation.free_words import GOALS, FreeWordsSettings, evaluate_free_words


def free_words(settings: FreeWordsSettings) -> None:
    """Print the figures of each arm, and write them as JSON."""
    report = evaluate_free_words(settings)
    photos = len(report["answers"])
    title = f"fold 0: {photos} photos, model {settings.model}, {settings.merge} merging"
    print(f"{title}; percent with 95 % intervals")
    for arm, own in report["arms"].items():
        for name, estimate in own.items():
            goal = f" (goal {GOALS[name]:.0f})" if name in GOALS else ""
            print(f"{arm:10} {name.replace('_', ' '):20} {estimate}{goal}")
    if settings.json:
        figures = {
            arm: {
                name: {"value": round(one.value, 3), "interval": [round(v, 3) for v in one.interval]}
                for name, one in own.items()
            }
            for arm, own in report["arms"].items()
        }
        record = {
            "photos": photos,
            "model": settings.model,
            "merge": settings.merge,
            "seed": settings.seed,
            "goals": GOALS,
            **report,
            "arms": figures,
        }
        write_text(settings.json, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    run_command(free_words, FreeWordsSettings, prog="train.free_words")
