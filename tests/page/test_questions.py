"""Questions about a result are answered from what the server keeps; bad ones get a sentence."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg_demo.output.export import export
from ovseg_demo.output.mask_formats import encode_rle
from ovseg_demo.page.example_results import example_result
from ovseg_demo.page.examples import load_examples
from ovseg_demo.page.questions import answer_of
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.result import Comparison

COW = next(one for one in load_examples() if one.photo.stem == "cow")
KEY = "example:cow"


@pytest.fixture(scope="module")
def result() -> Comparison:
    ready = example_result(COW)
    assert ready is not None
    return ready.result


def asked(pool: ModelPool, kind: Any, paths: tuple[Path, ...] = (), **content: Any) -> dict[str, Any]:
    question = {"kind": kind, "to": 3, "key": KEY, **content}
    answer = answer_of(json.dumps(question), [str(path) for path in paths], pool)
    assert answer["kind"] == "answer" and answer["to"] == 3
    json.dumps(answer, allow_nan=False)
    return answer


def packed(*masks: np.ndarray) -> bytes:
    return zlib.compress(b"".join(np.packbits(mask).tobytes() for mask in masks))


def deflated(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()


def mask_of(result: Comparison, name: str) -> tuple[np.ndarray, int]:
    index = next(c.index for c in result.second.classes if c.name == name)
    return result.second.label_map == index, index


def test_what_mattered_for_a_word_in_both_arms(pool: ModelPool, result: Comparison) -> None:
    mask, word = mask_of(result, "cow")
    content = {"word": word, "mask": base64.b64encode(packed(mask)).decode()}
    answer = asked(pool, "importance", **content)
    assert "error" not in answer, answer
    # The second time the models are loaded: what a visitor waits for.
    started = time.perf_counter()
    assert asked(pool, "importance", **content) == answer
    print(f"importance of one region in two arms: {time.perf_counter() - started:.2f} s")
    assert [one["arm"] for one in answer["maps"]] == ["adapted", "vanilla"]
    for one in answer["maps"]:
        effect, shown = np.array(one["effect"]), np.array(one["shown"])
        assert effect.shape == shown.shape == (7, 7) and (effect[~shown] == 0).all()
        assert one["margin"] > 0 and one["rival"] != "cow"
        assert effect.max() > 0.3
        crop = Image.open(io.BytesIO(base64.b64decode(one["crop"].partition(",")[2])))
        assert crop.size == (224, 224)
    # To plain CLIP, grass comes second: taken away bit by bit, a cow is less of a cow.
    assert answer["maps"][1]["rival"] == "grass" and np.sum(answer["maps"][1]["effect"]) > 0


def test_where_words_and_regions_lie(pool: ModelPool, result: Comparison, tmp_path: Path) -> None:
    masks = [mask_of(result, name)[0] for name in ("cow", "grass")]
    (tmp_path / "masks.bin").write_bytes(packed(*masks))
    answer = asked(pool, "space", (tmp_path / "masks.bin",), count=2)
    assert "error" not in answer, answer
    assert list(answer["regions"]) == ["vanilla", "adapted"]
    assert np.array(answer["words"]).shape == (len(result.second.classes), 2)
    assert np.array(answer["regions"]["adapted"]).shape == (2, 2)
    assert 0 < answer["regions_kept"] <= 1 and 0 < answer["words_kept"] <= 1 and not answer["words_moved"]


def test_a_result_against_its_own_label_map(pool: ModelPool, result: Comparison, tmp_path: Path) -> None:
    for name, content in export(result.second, ("label-map", "classes")).items():
        (tmp_path / name).write_bytes(content)
    answer = asked(pool, "truth", (tmp_path / "classes.json", tmp_path / "label_map.png"))
    assert answer["arms"]["adapted"]["pixel_accuracy"] == 100 and answer["arms"]["adapted"]["miou"] == 100
    assert answer["arms"]["vanilla"]["pixel_accuracy"] < 100
    assert answer["left_out"] == {} and 0.5 < answer["known"] <= 1
    places = [place - 1 for place in answer["shown"]]
    for arm in answer["arms"].values():
        assert len(arm["confusion"]) == len(places)
        assert all(arm["accuracy"][place] is not None for place in places)
        assert sum(arm["reliability"]["count"]) > 0


def sent(result: Comparison, *regions: tuple[np.ndarray, str | None]) -> str:
    """Corrections as the viewer sends them."""
    height, width = result.second.label_map.shape
    told = [{"counts": encode_rle(mask), "full": None, "name": name} for mask, name in regions]
    return json.dumps({"map": [height, width], "regions": told, "colours": {}})


def test_a_result_against_the_corrections_of_its_visitor(
    pool: ModelPool, result: Comparison, tmp_path: Path
) -> None:
    """What is accepted of an arm is right in it; what is renamed is wrong; the rest is not labelled."""
    cow, _ = mask_of(result, "cow")
    grass, _ = mask_of(result, "grass")
    path = tmp_path / "corrections.json"
    path.write_text(sent(result, (cow, "cow")))
    answer = asked(pool, "corrected", (path,))
    assert answer["arms"]["adapted"]["pixel_accuracy"] == 100 and answer["examples"] == 0
    assert answer["known"] == pytest.approx(cow.mean(), abs=1e-4)

    path.write_text(sent(result, (cow, "cow"), (grass, "cow")))
    wrong = asked(pool, "corrected", (path,))["arms"]["adapted"]
    assert wrong["pixel_accuracy"] == pytest.approx(100 * cow.sum() / (cow.sum() + grass.sum()), abs=0.01)
    place = [c.name for c in result.second.classes].index("cow")
    assert wrong["confusion"][0][place + 1] == cow.sum()
    assert sum(wrong["reliability"]["count"]) == cow.sum() + grass.sum()

    path.write_text(sent(result, (cow, None)))
    assert "No corrected region has a name" in asked(pool, "corrected", (path,))["error"]
    path.write_text("[")
    assert "no JSON" in asked(pool, "corrected", (path,))["error"]
    assert "not understood" in asked(pool, "corrected")["error"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"kind": "importance", "key": "nothing"}, "no longer on the server; press Run"),
        ({"kind": "importance", "word": 0}, "no word '0'"),
        ({"kind": "importance", "word": True}, "no word 'True'"),
        ({"kind": "importance", "word": 1, "mask": "%"}, "not understood"),
        ({"kind": "importance", "word": 1, "mask": base64.b64encode(b"no zlib").decode()}, "not understood"),
        (
            {"kind": "importance", "word": 1, "mask": deflated(b"1")},
            "not under",
        ),
        (
            {"kind": "importance", "word": 1, "mask": deflated(bytes(98304))},
            "no pixel",
        ),
        ({"kind": "space", "count": 10**9}, "not understood"),
        ({"kind": "truth"}, "no label map"),
        ({"kind": ["truth"]}, "not understood"),
        ({"kind": "other"}, "not understood"),
    ],
)
def test_a_bad_question_gets_a_sentence(pool: ModelPool, content: dict[str, Any], told: str) -> None:
    error = asked(pool, content.pop("kind"), **content)["error"]
    assert told in error and re.search(r"\. \(request \w+\)$", error)


def test_what_is_no_json_gets_one_too(pool: ModelPool) -> None:
    for text in ("", "[1]", "[" * 100_000):
        assert "not understood" in answer_of(text, [], pool)["error"]


def test_a_label_map_of_another_photo_gets_a_sentence(pool: ModelPool, tmp_path: Path) -> None:
    Image.fromarray(np.ones((5, 6), np.uint8)).save(tmp_path / "label.png")
    error = asked(pool, "truth", (tmp_path / "label.png",))["error"]
    assert "is 6 x 5 pixels and the photo 1024 x 768" in error
    both = (tmp_path / "label.png", tmp_path / "label.png")
    assert "one label map" in asked(pool, "truth", both)["error"]
