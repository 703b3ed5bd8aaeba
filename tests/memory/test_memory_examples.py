"""A memory: what it takes, its file and its JSON form."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from ovseg_demo.errors import CorrectionError
from ovseg_demo.memory import MAX_EXAMPLES, Example, Memory, thumbnail
from tests.drawn import box_mask

WEIGHTS = {"adapted": "a" * 64, "context": "c" * 64}


def example(name: str = "dog", seed: int = 0, picture: bytes = b"") -> Example:
    rng = np.random.default_rng(seed)
    rows = {"adapted": rng.normal(size=8), "context": rng.normal(size=12)}
    unit = {arm: (row / np.linalg.norm(row)).astype(np.float32) for arm, row in rows.items()}
    return Example(name, unit, picture)


def memory() -> Memory:
    picture = thumbnail(np.full((30, 200, 3), 90, np.uint8), box_mask((30, 200), 10, 0, 190, 30))
    return Memory("tiny", WEIGHTS, (example("dog", 0, picture), example("Rex", 1), example("DOG", 2)))


@pytest.mark.parametrize("form", ["bytes", "json", "file"])
def test_nothing_is_lost_on_the_way(form: str, tmp_path: Path) -> None:
    kept = memory()
    if form == "bytes":
        read = Memory.from_bytes(kept.to_bytes())
    elif form == "json":
        read = Memory.from_json(json.loads(json.dumps(kept.to_json())))
    else:
        kept.save(tmp_path / "memory.safetensors")
        read = Memory.load(tmp_path / "memory.safetensors")
    assert (read.model, dict(read.weights), read.names) == ("tiny", WEIGHTS, ("dog", "Rex"))
    assert [e.thumbnail for e in read.examples] == [e.thumbnail for e in kept.examples]
    for arm in WEIGHTS:
        assert np.abs(read.features(arm) - kept.features(arm)).max() < 1e-3
        assert np.allclose(np.linalg.norm(read.features(arm), axis=1), 1, atol=1e-5)


def test_examples_come_and_go() -> None:
    kept = memory()
    assert [e.name for e in kept.without([0]).examples] == ["Rex", "DOG"]
    assert len(kept.adding([example("cat")])) == 4 and len(kept) == 3


def test_a_memory_of_other_weights_is_refused_and_says_which() -> None:
    kept = memory()
    kept.check("adapted", "a" * 64, "tiny")
    with pytest.raises(
        CorrectionError, match=r"made with tiny \(adapted, context, weights aaaaaaaa\) and not"
    ):
        kept.check("adapted", "b" * 64, "ovseg-mini")
    with pytest.raises(CorrectionError, match="nothing of the arm vanilla of ovseg-mini"):
        kept.check("vanilla", "a" * 64, "ovseg-mini")


def test_too_many_examples_are_refused() -> None:
    one = example()
    assert len(Memory("tiny", WEIGHTS, (one,) * MAX_EXAMPLES)) == MAX_EXAMPLES
    with pytest.raises(CorrectionError, match="at most 5,000 examples and this one has 100,000"):
        Memory("tiny", WEIGHTS, (one,) * 100_000)
    names = json.dumps(["dog"] * 100_000)
    notes = {"format": "ovseg-demo memory", "version": "1", "model": "tiny", "names": names}
    notes |= {"weights": json.dumps(WEIGHTS), "thumbnails": "[]"}
    with pytest.raises(CorrectionError, match="this one has 100,000"):
        Memory.from_bytes(save({"adapted": np.zeros((1, 1), np.float16)}, metadata=notes))


@pytest.mark.parametrize("feature", [np.zeros(8), np.full(8, np.nan), np.ones((2, 4)), np.ones(8)])
def test_a_feature_that_is_no_unit_vector_is_refused(feature: Any) -> None:
    with pytest.raises(CorrectionError, match="no unit vector, as that of an empty mask"):
        Example("dog", {"adapted": feature.astype(np.float32)})


def test_names_with_markup_and_pictures_that_are_none_are_refused() -> None:
    with pytest.raises(CorrectionError, match="holds markup"):
        example("<img src=x>")
    with pytest.raises(CorrectionError, match="no JPEG"):
        example(picture=b"<svg onload=alert(1)>")
    with pytest.raises(CorrectionError, match="no JPEG"):
        example(picture=b"\xff\xd8\xff" + b"0" * 10_000)


def damaged() -> list[bytes]:
    whole = memory().to_bytes()
    other = save({"x": np.zeros(3, np.float32)}, metadata={"format": "pt"})
    return [b"", b"PK\x03\x04", whole[:100], whole[:-5], other, whole[:8] + b"[" * 50_000, b"\xff" * 64]


@pytest.mark.parametrize("content", damaged(), ids=["empty", "zip", "start", "cut", "other", "json", "bytes"])
def test_what_is_no_memory_is_told_in_one_sentence(content: bytes) -> None:
    with pytest.raises(CorrectionError, match="no memory"):
        Memory.from_bytes(content)


@pytest.mark.parametrize(
    "content", [None, [], {}, {"version": 1, "examples": [{}]}, memory().to_json() | {"weights": []}]
)
def test_json_that_is_no_memory_is_told_in_one_sentence(content: Any) -> None:
    with pytest.raises(CorrectionError, match="no memory"):
        Memory.from_json(content)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match="cannot be read"):
        Memory.load(tmp_path / "none.safetensors")


def test_a_thumbnail_shows_the_region_and_is_small() -> None:
    image = np.full((300, 400, 3), (200, 30, 30), np.uint8)
    small = Image.open(io.BytesIO(thumbnail(image, box_mask((300, 400), 0, 100, 200, 200))))
    assert small.size == (64, 32)
    assert np.abs(np.asarray(small)[16, 32].astype(int) - (200, 30, 30)).max() < 12
    assert len(thumbnail(image, box_mask((300, 400), 0, 0, 1, 1))) < 8_000
