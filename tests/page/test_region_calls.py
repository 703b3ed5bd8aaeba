"""Short calls about regions: what they answer, and what they refuse."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from ovseg_demo.imaging import load_image
from ovseg_demo.memory import Memory
from ovseg_demo.output.mask_formats import decode_rle, encode_rle
from ovseg_demo.page.region_calls import CALLS, RegionCalls, models_asked
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "cow.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where uploads lie, with one photo."""
    place = tmp_path_factory.mktemp("uploads")
    shutil.copy(EXAMPLE, place / "cow.jpg")
    return place


@pytest.fixture(scope="module")
def calls(folder: Path) -> RegionCalls:
    """The calls on the default models, working at 256 pixels."""
    return RegionCalls(ModelPool(Settings(max_side_px=256)), folder)


@pytest.fixture(scope="module")
def size() -> tuple[int, int]:
    return load_image(EXAMPLE).shape[:2]  # type: ignore[return-value]


def content(folder: Path, size: tuple[int, int], **more: Any) -> dict[str, Any]:
    """What the viewer sends with every call."""
    models = {"model": "ovseg-mini", "proposer": "mobile-sam", "density": "low", "max_side_px": 256}
    told = {"photo": str(folder / "cow.jpg"), "models": models, "map": list(size), "arm": "adapted"}
    return told | {"words": "cow, grass"} | more


def ask(calls: RegionCalls, name: str, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return calls.answer(name, json.dumps(told).encode())


def the_cow(size: tuple[int, int]) -> str:
    mask = np.zeros(size, dtype=np.bool_)
    mask[int(0.4 * size[0]) : int(0.65 * size[0]), int(0.35 * size[1]) : int(0.85 * size[1])] = True
    return encode_rle(mask)


def test_a_press_gives_masks_that_hold_it_and_names(
    calls: RegionCalls, folder: Path, size: tuple[int, int]
) -> None:
    x, y = size[1] // 2, size[0] // 2
    status, told = ask(calls, "regions", content(folder, size, points=[[x, y, 1]]))
    assert status == 200, told
    assert 1 <= len(told["masks"]) <= 3
    assert decode_rle(told["masks"][0]["counts"], size)[y, x]
    names = told["masks"][0]["names"]
    assert len(names) == 5 and names[0]["score"] >= names[-1]["score"]
    # A box of the same photo, at a map of another size.
    half = [size[0] // 2, size[1] // 2]
    status, told = ask(calls, "regions", content(folder, size, box=[50, 50, x, y], map=half))
    assert status == 200, told
    assert decode_rle(told["masks"][0]["counts"], (half[0], half[1])).any()


def test_a_preview_is_the_best_mask_of_the_press_and_never_analyses_a_photo(
    calls: RegionCalls, folder: Path, size: tuple[int, int]
) -> None:
    told = content(folder, size, points=[[size[1] // 2, size[0] // 2, 1]])
    photos = calls.pool.get(models_asked(told["models"], calls.pool)).photos
    photos.clear()
    assert ask(calls, "preview", told) == (200, {"kept": False, "counts": None})
    assert len(photos) == 0
    _, pressed = ask(calls, "regions", told)
    status, answer = ask(calls, "preview", told)
    assert (status, answer) == (200, {"kept": True, "counts": pressed["masks"][0]["counts"]})
    status, answer = ask(calls, "preview", told | {"points": [[-5, 0, 1]]})
    assert status == 422 and "outside the photo" in answer["detail"]


def test_corrections_become_a_memory_that_names_by_likeness(
    calls: RegionCalls, folder: Path, size: tuple[int, int]
) -> None:
    told = content(folder, size, masks=[the_cow(size)], names=["Bessie"])
    status, answer = ask(calls, "remember", told)
    assert status == 200, answer
    memory = Memory.from_json(answer)
    assert memory.names == ("Bessie",) and "adapted" in memory.weights
    (folder / "memory.json").write_text(json.dumps(answer), encoding="utf-8")
    words = {"words": "animal, grass, Bessie"}
    _, without = ask(calls, "names", told | words)
    _, remembered = ask(calls, "names", told | words | {"memory": str(folder / "memory.json")})
    assert without["names"][0][0]["name"] != "Bessie"
    assert remembered["names"][0][0]["name"] == "Bessie"
    # As a file it is read back; of other weights it is refused by name.
    (folder / "memory.safetensors").write_bytes(memory.to_bytes())
    status, answer = ask(calls, "memory", {"file": str(folder / "memory.safetensors")})
    assert status == 200 and len(answer["examples"]) == 1
    foreign = Memory("another-clip", dict.fromkeys(memory.weights, "0" * 16))
    (folder / "foreign.safetensors").write_bytes(foreign.to_bytes())
    status, answer = ask(calls, "memory", {"file": str(folder / "foreign.safetensors")})
    assert status == 422 and "another-clip" in answer["detail"]


def test_two_visitors_never_have_each_others_memory(
    calls: RegionCalls, folder: Path, size: tuple[int, int]
) -> None:
    told = content(folder, size, masks=[the_cow(size)], words="grass, Bessie, Rosa")
    asked = []
    for name in ("Bessie", "Rosa"):
        _, memory = ask(calls, "remember", told | {"names": [name]})
        (folder / f"{name}.json").write_text(json.dumps(memory), encoding="utf-8")
        asked.append(told | {"memory": str(folder / f"{name}.json")})
    with ThreadPoolExecutor(2) as two:
        answers = list(two.map(lambda one: ask(calls, "names", one), 3 * asked))
    firsts = [answer["names"][0][0]["name"] for _, answer in answers]
    assert firsts == 3 * ["Bessie", "Rosa"]


def test_a_memory_of_100_000_examples_is_refused(calls: RegionCalls, folder: Path) -> None:
    weights = {"adapted": "0" * 64}
    notes = {"format": "ovseg-demo memory", "version": "1", "model": "ovseg-mini", "thumbnails": "[]"}
    notes |= {"weights": json.dumps(weights), "names": json.dumps(["cow"] * 100_000)}
    (folder / "large.safetensors").write_bytes(
        save({"adapted": np.zeros((1, 1), np.float16)}, metadata=notes)
    )
    status, answer = ask(calls, "memory", {"file": str(folder / "large.safetensors")})
    assert status == 422 and "at most 5,000 examples and this one has 100,000" in answer["detail"]


def test_labels_of_the_photo_are_opened(calls: RegionCalls, folder: Path, size: tuple[int, int]) -> None:
    mask = {"size": list(size), "counts": the_cow(size)}
    coco = {
        "images": [{"id": 1, "file_name": "cow.jpg", "height": size[0], "width": size[1]}],
        "categories": [{"id": 7, "name": "Bessie"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": mask}],
    }
    (folder / "coco.json").write_text(json.dumps(coco), encoding="utf-8")
    told = content(folder, size, files=[str(folder / "coco.json")], photo_name="cow.jpg")
    status, answer = ask(calls, "open", told)
    assert status == 200, answer
    named = [one for one in answer["regions"] if one["name"] == "Bessie"]
    assert len(named) == 1 and named[0]["counts"] == the_cow(size)
    (folder / "wrong.json").write_text(json.dumps(coco | {"images": [coco["images"][0] | {"width": 9}]}))
    status, answer = ask(calls, "open", told | {"files": [str(folder / "wrong.json")]})
    assert status == 422 and "own photo" in answer["detail"]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("regions", {"points": [[-5, 5, 1]]}, "outside the photo"),
        ("regions", {"points": [["a", 5, 1]]}, "two numbers"),
        ("regions", {"points": [[5, 5, 0]]}, "no click on the region"),
        ("regions", {"box": [5, 5, 5, 5]}, "no area"),
        ("regions", {"box": [5, 5]}, "four numbers"),
        ("names", {"masks": []}, "1 to 64 masks"),
        ("names", {"masks": ["damaged"]}, "cannot be read"),
        ("names", {"masks": [5]}, "cannot be read"),
        ("remember", {"names": ["<b>x</b>"]}, "markup"),
        ("remember", {"names": []}, "needs a name"),
        ("names", {"map": [5, "x"]}, "size of the map"),
        ("names", {"arm": "another"}, "no arm"),
        ("names", {"models": {"model": "/etc/passwd"}}, "no model"),
        ("names", {"models": {"proposer": "../x"}}, "no proposer"),
        ("names", {"models": {"max_side_px": 10**6}}, "at most"),
        ("open", {"files": []}, "Choose one COCO JSON"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    calls: RegionCalls, folder: Path, size: tuple[int, int], name: str, change: dict[str, Any], sentence: str
) -> None:
    told = content(folder, size, masks=[the_cow(size)], names=["cow"]) | change
    status, answer = ask(calls, name, told)
    assert status == 422 and sentence in answer["detail"]


def test_only_uploads_are_read(
    calls: RegionCalls, folder: Path, size: tuple[int, int], tmp_path: Path
) -> None:
    (folder / "link.jpg").symlink_to(EXAMPLE)
    shutil.copy(EXAMPLE, tmp_path / "elsewhere.jpg")
    outside = [str(EXAMPLE), str(tmp_path / "elsewhere.jpg"), str(folder / "link.jpg"), "../x", None, "\0"]
    for path in outside:
        status, answer = ask(calls, "names", content(folder, size, masks=[the_cow(size)], photo=path))
        assert status == 410 and "no longer" in answer["detail"]
    for name in CALLS:
        for body in (b"", b"[]", b"[" * 100_000, b"\xff"):
            status, answer = calls.answer(name, body)
            assert status == 422 and "no JSON object" in answer["detail"]
