"""Colours, fonts and files of all charts."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.core.files import write_bytes

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6e6e6e", "#aa9614")
"""Okabe and Ito's, which colour-blind readers tell apart."""
FAINT = "#626872"

# DejaVu Sans comes with matplotlib; the others have scripts that it lacks.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "PingFang HK",
    "Microsoft YaHei",
)
_DPI = 100


def new_figure(width_px: float, height_px: float) -> Figure:
    """An empty figure of that size, outside pyplot's global state."""
    return Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, layout="constrained")


def colour(number: int) -> str:
    """Of the n-th line or bar."""
    return COLOURS[number % len(COLOURS)]


def plain_axes(axes: Axes, grid: str = "y") -> None:
    """Leave a pale grid and no frame around the data.

    Args:
        axes: is changed.
        grid: "x", "y" or "both".
    """
    axes.grid(True, axis=grid, color="#dee1e6", linewidth=1)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelcolor=FAINT)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    installed = set(font_manager.get_font_names())
    buffer = io.BytesIO()
    # matplotlib reads text between dollar signs as a formula.
    style: Any = {"font.family": [name for name in _FONTS if name in installed], "text.parse_math": False}
    with rc_context(style), warnings.catch_warnings():
        # A letter that no font here has is drawn as an empty box.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())
