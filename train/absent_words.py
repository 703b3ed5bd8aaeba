"""Words that are not there: how often the demo says so, and how often it finds what is there.

    python -m train.absent_words --data-set coco-val --json absent.json

Protocol. Each photo is asked for up to five names that it shows and five that it does not, typed together, in
one vocabulary, with the demo's default rule. The names are drawn by the photo's file name and the seed, the
same for every arm, model and machine:

    present   names with an instance over 1 % of the photo
    absent    names without any instance, not even a crowd

A name that is there only as a smaller instance or as a crowd is not asked for. With --all-names every name
of the data set is typed for each photo, such names too, which then count on neither side; printed are how
many of the present ones are found and how many of the found ones, present or absent, are present.
"""

from __future__ import annotations

import json

from train.core.files import write_text
from train.core.options import run_command
from train.data.data_sets import read_data_set
from train.evaluation.absent_words import GOALS, LONG_LIST_GOALS, AbsentWordsSettings, evaluate_questions
from train.evaluation.runner import evenly_spaced


def absent_words(settings: AbsentWordsSettings) -> None:
    """Print the two figures of each arm beside the goals, and write them as JSON."""
    truth = read_data_set(settings.data_set, settings.data)
    report = evaluate_questions(truth, evenly_spaced(truth.photos, settings.photos), settings)
    goals = LONG_LIST_GOALS if settings.all_names else GOALS
    print(
        f"{truth.name}: {len(report['answers'])} photos, model {settings.model}; percent with 95 % intervals"
    )
    for arm, own in report["arms"].items():
        for name, goal in goals.items():
            if name in own:
                low, high = own["intervals"][name]
                value = f"{own[name]:5.1f} [{low:.1f}, {high:.1f}] of {own[f'{name}_of']}"
                print(f"{arm:10} {name.replace('_', ' '):18} {value} (goal {goal:.0f})")
    if settings.json:
        record = {
            "data_set": truth.name,
            "photos": len(report["answers"]),
            "model": settings.model,
            "seed": settings.seed,
            "goals": goals,
            **report,
        }
        write_text(settings.json, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    run_command(absent_words, AbsentWordsSettings, prog="train.absent_words")
