"""The result a visitor sees before anything has run: computed once, by the real pipeline, and kept as a file.

    python -m ovseg_demo.page.shipped

makes it anew, for the first example and the default models.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from ovseg_demo.page.examples import FOLDER, Example, load_examples
from ovseg_demo.page.payload import result_payload
from ovseg_demo.settings import Settings

__all__ = ["SHIPPED", "shipped_payload"]

SHIPPED = FOLDER / "first_look.json.gz"


def shipped_payload(path: Path = SHIPPED) -> dict[str, Any] | None:
    """The kept result, marked as such; None if there is none."""
    try:
        payload: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except FileNotFoundError:
        return None
    return payload


def compute(example: Example, settings: Settings) -> dict[str, Any]:
    """Runs both arms on the example."""
    from ovseg_demo.segmenter import Segmenter

    comparison = Segmenter.from_pretrained(settings.model, proposer=settings.proposer).compare(
        example.photo, example.words
    )
    message = f"An example, computed earlier: {example.title}. {comparison.verdict}"
    return result_payload(comparison) | {"kind": "result", "message": message}


def main() -> None:
    """Writes the file; the same result gives the same bytes."""
    content = json.dumps(compute(load_examples()[0], Settings()), ensure_ascii=False).encode()
    SHIPPED.write_bytes(gzip.compress(content, mtime=0))
    print(f"{SHIPPED}: {SHIPPED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
