"""Draw lines of text in any script on pictures.

Pillow's built-in font has Latin letters; other scripts need one of the system's fonts. A name that no
installed font can draw is replaced by the number of its class.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import ImageDraw, ImageFont

__all__ = ["TextLine", "shorten", "wrap"]

# Fonts with other scripts than Pillow's own font, the largest first.
_OWN_FONT = ""
_OTHER_FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "segoeui.ttf",
)


@dataclass(frozen=True)
class TextLine:
    """One line of text; each letter is drawn in the first font that has it.

    If no font has a letter, a name is replaced by the number of its class. Other text gets a question mark in
    place of the letter.
    """

    text: str
    index: int
    """Number of the class the text names; 0 for text that is no name."""
    size: float
    """Of the letters, in pixels."""

    @property
    def shown(self) -> str:
        """The drawn text: the text itself, or "class 3" if no font has one of its letters."""
        if _runs(self.text) is not None:
            return self.text
        if self.index:
            return f"class {self.index}"
        return "".join(char if _is_invisible(char) or _font_with(char) else "?" for char in self.text)

    @property
    def width(self) -> float:
        """In pixels."""
        return sum(_load_font(name, self.size).getlength(part) for name, part in self._parts)

    def draw(self, draw: ImageDraw.ImageDraw, x: float, middle: float, colour: tuple[int, int, int]) -> None:
        """Draw the line from x on, its small letters centred on `middle`."""
        for name, part in self._parts:
            font = _load_font(name, self.size)
            draw.text((x, middle + 0.35 * self.size), part, font=font, fill=colour, anchor="ls")
            x += font.getlength(part)

    @property
    def _parts(self) -> tuple[tuple[str, str], ...]:
        return _runs(self.shown) or ()


@lru_cache(maxsize=8192)
def _runs(text: str) -> tuple[tuple[str, str], ...] | None:
    """The text cut into (font name, letters) pieces, or None if no font has one of the letters."""
    runs: list[tuple[str, str]] = []
    for char in text:
        name = runs[-1][0] if runs and _is_invisible(char) else _font_with(char)
        if name is None:
            return None
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + char)
        else:
            runs.append((name, char))
    return tuple(runs)


def _is_invisible(char: str) -> bool:
    """Blanks, joiners, accents and style selectors stay with the letter before them."""
    return unicodedata.category(char) in {"Zs", "Cf", "Mn", "Mc", "Me"}


@lru_cache(maxsize=8192)
def _font_with(char: str) -> str | None:
    for name in (_OWN_FONT, *_OTHER_FONTS):
        if _is_invisible(char):
            return name
        try:
            font = _load_font(name, 20.0)
        except OSError:
            continue
        if _glyph_image(font, char) != _glyph_image(font, "\U0010fffd"):
            return name
    return None


def _glyph_image(font: ImageFont.FreeTypeFont, char: str) -> tuple[Any, bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)


@lru_cache(maxsize=256)
def _load_font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """Raises `OSError` if this system has no font of that name."""
    font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def shorten(text: str, most: int) -> str:
    """The text if it has at most `most` characters, its beginning and an ellipsis otherwise."""
    return text if len(text) <= most else text[: max(1, most - 1)].rstrip() + "…"


def wrap(line: str, size: float, width: float) -> list[str]:
    """The line cut at blanks into pieces of at most `width` pixels; a longer word stays whole."""
    lines, current = [], ""
    for word in line.split(" "):
        longer = f"{current} {word}".strip()
        if current and TextLine(longer, 0, size).width > width:
            lines.append(current)
            longer = word
        current = longer
    return [*lines, current]
