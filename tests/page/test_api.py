"""The endpoints answer programs: through Gradio's client, and through plain HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pycocotools import mask as coco

from ovseg_demo import Segmenter, Settings, load_image
from ovseg_demo.corrections import CorrectedRegion, corrections_to_json
from ovseg_demo.devices import fast_dtype
from ovseg_demo.models import default_arm
from ovseg_demo.page.layout import build, served
from ovseg_demo.page.server.model_pool import ModelPool

# pycocotools 2.0.11 still uses an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COFFEE = Path(__file__).parents[2] / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def url(pool: ModelPool) -> Iterator[str]:
    page = build(pool.settings, pool)
    yield served(page, pool.settings, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def test_only_the_four_endpoints_are_public(client: Client) -> None:
    endpoints: dict[str, Any] = client.view_api(return_format="dict", print_info=False)
    assert set(endpoints["named_endpoints"]) == {"/segment", "/compare", "/proposals", "/models"}
    names = [p["parameter_name"] for p in endpoints["named_endpoints"]["/segment"]["parameters"]]
    assert names[:7] == ["photo", "words", "weights", "model", "proposer", "templates", "merge"]
    assert names[7:] == ["strictness", "density", "ensemble", "corrections", "memory"]


def test_segment_gives_facts_and_pictures(client: Client) -> None:
    facts, overlay, label_map = client.predict(handle_file(COFFEE), "cup, zebra", api_name="/segment")
    assert [c["name"] for c in facts["classes"]] == ["cup", "zebra"]
    assert facts["arm"] == default_arm("ovseg-mini")
    with Image.open(overlay) as picture, Image.open(label_map) as labels:
        assert picture.width == 600
        numbers = np.asarray(labels)
    assert numbers.shape == (400, 600) and set(np.unique(numbers)) <= {0, 1, 2}


def test_corrections_and_a_memory_go_along(client: Client, pool: ModelPool, tmp_path: Path) -> None:
    mask = np.zeros((400, 600), bool)
    mask[40:220, 160:400] = True
    corrections = [CorrectedRegion.of(mask, "my cup")]
    segmenter = pool.get(pool.default)
    memory = segmenter.remember(load_image(COFFEE), corrections, [default_arm("ovseg-mini")])
    memory.save(tmp_path / "memory.safetensors")
    facts, _, label_map = client.predict(
        handle_file(COFFEE),
        "table",
        corrections=json.dumps(corrections_to_json(corrections)),
        memory=handle_file(tmp_path / "memory.safetensors"),
        api_name="/segment",
    )
    assert [c["name"] for c in facts["classes"]] == ["table", "my cup"]
    assert facts["settings"]["memory"] == 1
    with Image.open(label_map) as labels:
        assert (np.asarray(labels)[mask] == 2).all()
    for wrong, said in (("no JSON", "no JSON"), ('{"regions": [], "version": 9}', "version '9'")):
        with pytest.raises(AppError, match=said):
            client.predict(handle_file(COFFEE), "table", corrections=wrong, api_name="/segment")
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(AppError, match="no memory"):
        client.predict(
            handle_file(COFFEE),
            "table",
            memory=handle_file(tmp_path / "other.safetensors"),
            api_name="/segment",
        )


def test_compare_gives_what_changed_and_a_zip(client: Client) -> None:
    told, archive = client.predict(handle_file(COFFEE), "cup, table", api_name="/compare")
    assert told["verdict"] and told["vanilla"]["arm"] == "vanilla" and told["adapted"]["arm"] == "adapted"
    assert Path(archive).read_bytes()[:2] == b"PK"


def test_compare_takes_any_two_arms(client: Client) -> None:
    arms = {"first": "no-prompts", "second": "vanilla"}
    told, archive = client.predict(handle_file(COFFEE), "cup, table", **arms, api_name="/compare")
    assert told["arms"] == ["no-prompts", "vanilla"] and told["no-prompts"]["arm"] == "no-prompts"
    with zipfile.ZipFile(archive) as files:
        assert {"overlay.png", "no-prompts/overlay.png"} <= set(files.namelist())


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("context@clip-vit-b16", "This server has no model 'clip-vit-b16'; the nearest are clip-vit-b-16"),
        ("vanilla@/etc/passwd", "This server has no model '/etc/passwd'; the nearest are ovseg-mini"),
        ("contxt", "There is no arm called 'contxt'; choose from vanilla"),
    ],
)
def test_an_arm_that_does_not_exist_is_one_sentence_with_the_nearest_names(
    client: Client, arm: str, said: str
) -> None:
    for api, chosen in (("/segment", {"weights": arm}), ("/compare", {"second": arm})):
        with pytest.raises(AppError) as caught:
            client.predict(handle_file(COFFEE), "cup", **chosen, api_name=api)
        assert said in str(caught.value) and "list of choices" not in str(caught.value)


def test_proposals_are_coco_run_lengths(client: Client) -> None:
    told = client.predict(handle_file(COFFEE), api_name="/proposals")
    height, width = told["size"]
    assert told["proposals"]
    for proposal in told["proposals"][:5]:
        mask = coco.decode({"size": [height, width], "counts": proposal["counts"].encode()})
        left, top, right, bottom = proposal["box"]
        assert mask.any() and mask.sum() == mask[top:bottom, left:right].sum()


def test_models_lists_names_licences_and_what_is_here(client: Client) -> None:
    rows = {row["name"]: row for row in client.predict(api_name="/models")}
    assert rows["ovseg-mini"]["present"] and rows["ovseg-vit-l-14"]["non_commercial"]


@pytest.mark.parametrize(
    ("words", "said"), [("", "no name"), ("x" * 500, "xxx"), (",".join(map(str, range(2000))), "1,000")]
)
def test_errors_are_the_sentences_of_the_page(client: Client, words: str, said: str) -> None:
    with pytest.raises(AppError, match=said):
        client.predict(handle_file(COFFEE), words, api_name="/segment")


def test_the_readmes_example_runs_as_it_stands(url: str, tmp_path: Path) -> None:
    """Copied and pasted, but for the address of the server."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = (part for part in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "Client(" in part)
    assert "http://127.0.0.1:7860" in example
    (tmp_path / "photo.jpg").write_bytes(COFFEE.read_bytes())
    code = example.replace("http://127.0.0.1:7860", url)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "overlay.png" in done.stdout and "comparison.zip" in done.stdout


def test_what_a_zip_says_gives_the_same_result_again(client: Client, pool: ModelPool, tmp_path: Path) -> None:
    _, archive = client.predict(handle_file(COFFEE), "cup, wooden table, zebra", api_name="/compare")
    with zipfile.ZipFile(archive) as files:
        told = json.loads(files.read("result.json"))
        with Image.open(io.BytesIO(files.read("label_map.png"))) as picture:
            labels = np.asarray(picture)
    assert told["photo_sha256"] == hashlib.sha256(load_image(COFFEE).tobytes()).hexdigest()
    for part in ("clip", "proposer"):
        used = told["models"][part]
        assert re.fullmatch("[0-9a-f]{64}", used["sha256"])
        assert used["device"] == "cpu" and used["number_type"] == str(fast_dtype(torch.device("cpu")))[6:]
    assert told["models"]["proposer"]["density"] == "normal" and told["software"]["torch"] == version("torch")
    asked = told["settings"]
    again = Segmenter.from_pretrained(
        told["models"]["clip"]["name"],
        proposer=told["models"]["proposer"]["name"],
        settings=Settings(max_side_px=asked["max_side_px"], max_regions=asked["max_regions"]),
    )(
        COFFEE,
        asked["vocabulary"],
        told["models"]["clip"]["arm"],
        merge=asked["merge"],
        templates=asked["templates"],
        strictness=asked["strictness"],
    )
    assert np.array_equal(again.label_map, labels)


def test_a_choice_that_does_not_exist_is_refused(client: Client) -> None:
    with pytest.raises(AppError):
        client.predict(handle_file(COFFEE), "cup", "adapted", "../../secret.pt", api_name="/segment")


def test_files_of_the_server_are_out_of_reach(url: str) -> None:
    answer = _call(url, "segment", [{"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, "cup"])
    assert "event: error" in answer and "classes" not in answer


def test_a_call_may_leave_out_what_has_a_default_and_is_told_what_has_none(url: str) -> None:
    with COFFEE.open("rb") as file:
        upload = httpx.post(f"{url}gradio_api/upload", files={"files": file}).json()[0]
    photo = {"path": upload, "meta": {"_type": "gradio.FileData"}}
    answer = _call(url, "segment", [photo, "cup"])
    assert "event: complete" in answer and "cup" in answer
    short = httpx.post(f"{url}gradio_api/call/segment", json={"data": [photo]})
    assert short.status_code == 422 and "lacks words;" in short.json()["detail"]
    assert "strictness" in short.json()["detail"]


def test_plain_http_is_enough(url: str) -> None:
    answer = _call(url, "models", [])
    assert "event: complete" in answer and "ovseg-mini" in answer


def test_the_page_is_built_without_torch() -> None:
    code = """
import sys
from ovseg_demo.models import default_arm
from ovseg_demo.page.layout import build
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.settings import Settings
build(Settings(), ModelPool(Settings()))
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def _call(url: str, endpoint: str, arguments: list[Any]) -> str:
    """What curl would do: ask, get a number, read the events of that number."""
    ask = urllib.request.Request(
        f"{url}gradio_api/call/{endpoint}",
        json.dumps({"data": arguments}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(ask, timeout=60) as reply:
        number = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{url}gradio_api/call/{endpoint}/{number}", timeout=60) as events:
        answer: str = events.read().decode()
    return answer
