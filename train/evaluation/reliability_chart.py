"""A picture of how right confidences are: mean confidence against the share that is right."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from ovseg_demo.evaluation.metrics import Reliability
from train.core.files import write_bytes


def draw_reliability(arms: Mapping[str, tuple[Reliability, Reliability]], path: Path) -> None:
    """One panel for words and one for regions, a line per arm; the size of a dot says how many there are.

    Args:
        arms: by arm, the reliability of words and of regions.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for place, title in enumerate(("a word is in the photo", "a region's word is right")):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for arm, both in arms.items():
            one = both[place]
            total = max(sum(one.count), 1)
            (line,) = axes.plot(one.confidence, one.right, label=f"{arm}, error {one.error:.3f}")
            sizes = [10 + 300 * count / total for count in one.count]
            axes.scatter(one.confidence, one.right, s=sizes, color=line.get_color())
        axes.set(title=title, xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left", frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())
