"""Results of the examples, computed once by the real pipeline and kept as files beside the photos.

A visitor sees one before anything has run, and each example at once. A file holds what the viewer gets, but
for the photo; the result itself is read back from it, so exports and suggestions work as after a run.

    python -m ovseg_demo.page.example_results

computes them with the default models and settings.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg_demo.imaging import load_image
from ovseg_demo.models import COMPARED
from ovseg_demo.output.export import write_files
from ovseg_demo.page.examples import Example, load_examples
from ovseg_demo.page.handlers import told_payload
from ovseg_demo.page.server.gradio_compat import upload_key
from ovseg_demo.page.server.result_store import ResultStore
from ovseg_demo.page.viewer.payload import MAX_MAP_SIDE, photo_payload, result_payload
from ovseg_demo.result import ClassResult, Comparison, RegionResult, Segmentation, compare
from ovseg_demo.settings import Settings

__all__ = ["ExampleResult", "example_result", "find_result", "result_file"]

_KEY = "example:"
"""How the keys of examples begin; none of the result store does."""


@dataclass(frozen=True)
class ExampleResult:
    """An example with its result."""

    payload: dict[str, Any]
    """For the viewer."""
    result: Comparison


def result_file(example: Example) -> Path:
    """Where the result of an example lies."""
    return example.photo.parent / "results" / f"{example.photo.stem}.json.gz"


@lru_cache(maxsize=32)
def example_result(example: Example) -> ExampleResult | None:
    """The kept result of an example; None if there is none for these words."""
    try:
        kept: dict[str, Any] = json.loads(gzip.decompress(result_file(example).read_bytes()))
    except FileNotFoundError:
        return None
    if kept.pop("words") != example.words:
        return None
    photo = load_image(example.photo)
    first, second = (_read_back(kept, arm, photo) for arm in COMPARED)
    result = compare(first, second)
    payload = kept | {
        "photo": photo_payload(photo),
        "kind": "result",
        **told_payload(result),
        "key": f"{_KEY}{example.photo.stem}",
        "of": upload_key(example.photo),
        "opens": True,
        "photo_name": example.photo.name,
        "timing": _told(example),
        "again": False,
    }
    return ExampleResult(payload, result)


def _told(example: Example) -> str:
    """The line below the picture of an example, which also says what is wrong in it."""
    line = f"An example, computed beforehand: {example.title}. Photo: {example.credit}."
    return f"{line} Where it still errs: {example.errs}" if example.errs else line


def find_result(key: str | None, store: ResultStore) -> Segmentation | Comparison | None:
    """The result that the viewer shows by its key: of an example, or of the store; None if it is gone."""
    if key and key.startswith(_KEY):
        shown = [one for one in load_examples() if one.photo.stem == key.removeprefix(_KEY)]
        ready = example_result(shown[0]) if shown else None
        return ready.result if ready else None
    return store.get(key)


def _read_back(kept: dict[str, Any], arm: str, photo: npt.NDArray[np.uint8]) -> Segmentation:
    facts = kept["arms"][arm]
    shape = (kept["map"]["height"], kept["map"]["width"])
    maps = [
        np.frombuffer(zlib.decompress(base64.b64decode(facts[key])), "<u2").reshape(shape).astype(np.uint16)
        for key in ("labels", "regions")
    ]
    return Segmentation(
        image=photo,
        label_map=maps[0],
        region_map=maps[1],
        classes=tuple(
            ClassResult(**c | {"synonyms": tuple(c["synonyms"]), "colour": tuple(c["colour"])})
            for c in facts["classes"]
        ),
        regions=tuple(
            RegionResult(
                **r
                | {"box": tuple(r["box"]), "top": tuple((best["name"], best["score"]) for best in r["top"])}
            )
            for r in facts["facts"]
        ),
        timings=facts["timings"],
        models=facts["models"],
        settings=facts["settings"],
        arm=arm,
    )


def result_bytes(result: Comparison, words: str) -> bytes:
    """The file of a result: the same result gives the same bytes."""
    assert max(result.second.size) <= MAX_MAP_SIDE, "the maps would be thinned out"
    kept = result_payload(result) | {"words": words}
    del kept["photo"]
    return gzip.compress(json.dumps(kept, ensure_ascii=False).encode(), mtime=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files."""
    from ovseg_demo.segmenter import Segmenter

    parser = argparse.ArgumentParser(
        prog="python -m ovseg_demo.page.example_results", description="Compute the examples' results."
    )
    parser.parse_args(arguments)
    settings = Settings()
    segmenter = Segmenter.from_pretrained(settings.model, proposer=settings.proposer)
    for example in load_examples():
        result = segmenter.compare(example.photo, example.words)
        path = result_file(example)
        write_files({path.name: result_bytes(result, example.words)}, path.parent)
        print(f"{path.name}: {path.stat().st_size:,} bytes. {result.verdict}")


if __name__ == "__main__":
    main()
