"""The page as a Hugging Face Space: what the hub reads, what it builds, what is uploaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import SpaceHardware, metadata_load

from ovseg_demo.models import MODELS
from ovseg_demo.models.hub import HubFile
from ovseg_demo.page.server import model_pool
from ovseg_demo.page.space import NEWEST_TORCH, requirements, stage
from tests.hub_server import HubServer, running_hub

ROOT = Path(__file__).parents[2]

# The hub's list of what the front matter of a Space may say.
DOCUMENTED = """
title emoji colorFrom colorTo sdk python_version sdk_version suggested_hardware suggested_storage app_file
app_port base_path fullWidth header short_description models datasets tags thumbnail pinned hf_oauth
hf_oauth_scopes hf_oauth_expiration_minutes hf_oauth_authorized_org disable_embedding
startup_duration_timeout custom_headers preload_from_hub license
"""
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
ZERO_GPU_PYTHON = ("3.10", "3.12")


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    told = metadata_load(ROOT / "README.md")
    assert told, "README.md has no front matter"
    return told


def test_the_front_matter_says_what_a_space_needs_and_nothing_unknown(card: dict[str, Any]) -> None:
    assert set(card) <= set(DOCUMENTED.split())
    needed = (
        "title sdk sdk_version python_version app_file short_description models license suggested_hardware"
    )
    assert {*needed.split(), "preload_from_hub", "startup_duration_timeout"} <= set(card)
    assert card["sdk"] == "gradio" and (ROOT / card["app_file"]).is_file()
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert len(card["short_description"]) <= 60
    assert card["license"] == "apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert card["suggested_hardware"] in {str(item.value) for item in SpaceHardware}
    assert re.fullmatch(r"\d+[mh]", card["startup_duration_timeout"])
    assert all(isinstance(card[key], str) for key in ("sdk_version", "python_version", "title"))


def test_it_asks_for_versions_that_the_requirements_allow(card: dict[str, Any]) -> None:
    parts = tuple(map(int, card["sdk_version"].split(".")))
    assert (6, 31) <= parts < (7,)
    assert card["python_version"].rpartition(".")[0] in ZERO_GPU_PYTHON
    assert NEWEST_TORCH in ZERO_GPU_TORCH


def test_what_is_loaded_beforehand_is_what_the_model_table_asks_for(card: dict[str, Any]) -> None:
    known = {
        (source.repo, source.file, source.revision): entry.name
        for entry in MODELS.values()
        for source in entry.sources.values()
        if isinstance(source, HubFile) and source.repo_type == "model"
    }
    for line in card["preload_from_hub"]:
        repo, file, *revision = line.split()
        assert (repo, file, revision[0] if revision else "main") in known
    assert set(card["models"]) <= {repo for repo, _, _ in known}


@pytest.mark.parametrize(
    ("torch", "python"),
    [
        (NEWEST_TORCH, ZERO_GPU_PYTHON[-1]),
        *(
            pytest.param(torch, python, marks=pytest.mark.slow)
            for torch in ZERO_GPU_TORCH
            for python in ZERO_GPU_PYTHON
            if (torch, python) != (NEWEST_TORCH, ZERO_GPU_PYTHON[-1])
        ),
    ],
)
def test_the_requirements_resolve_for_zerogpu(
    card: dict[str, Any], torch: str, python: str, tmp_path: Path
) -> None:
    """A real resolver, with the index that this machine has."""
    pytest.importorskip("uv", reason="needs uv")
    wanted = tmp_path / "requirements.in"
    text = (ROOT / "requirements.txt").read_text("utf-8")
    wanted.write_text(f"{text}\ntorch=={torch}\nspaces\ngradio=={card['sdk_version']}\n", encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    place = ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run([*command, *place, str(wanted)], capture_output=True, text=True, timeout=300)
    offline = re.search(r"error sending request|dns error|Connection|timed out", done.stderr, re.IGNORECASE)
    if done.returncode and offline and not os.environ.get("CI"):
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    assert f"torch=={torch}" in done.stdout.splitlines()
    assert re.search(r"(?m)^spaces==", done.stdout)


def test_a_space_gets_the_newest_torch_that_zerogpu_runs() -> None:
    text = (ROOT / "requirements.txt").read_text("utf-8")
    changed = set(requirements(text).splitlines()) ^ set(text.splitlines())
    assert changed == {f"torch=={NEWEST_TORCH}", "torch>=2.8,<3"}


def test_what_is_staged_starts_and_has_no_other_files(tmp_path: Path) -> None:
    stage(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("app.py", "README.md", "LICENSE", "requirements.txt"),
        *("ovseg_demo", "checkpoints", "examples"),
    }
    assert not list(tmp_path.rglob("__pycache__")) and not list(tmp_path.rglob("*.part"))
    code = "import app; from ovseg_demo.models import rows; print([r.present for r in rows()][0])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "('vanilla', 'adapted', 'context')", done.stderr


def uploaded(
    arguments: list[str], hub: HubServer, home: Path, token: str
) -> subprocess.CompletedProcess[str]:
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    place = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(home)}
    command = [sys.executable, "-m", "ovseg_demo.page.space", *arguments]
    environment = {**os.environ, **quiet, **place}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_what_is_uploaded_is_what_was_staged(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    stage(tmp_path / "staged")
    start = "spaces/me/demo/resolve/main/"
    with running_hub() as hub:
        hub.token = "secret"
        refused = uploaded(["me/demo"], hub, tmp_path, "wrong")
        assert refused.returncode == 2 and not hub.repositories
        assert re.fullmatch(r"The upload to me/demo failed: .*\n", refused.stderr)
        hub.put(f"{start}ovseg_demo/gone.py", b"of an earlier version")
        done = uploaded(["me/demo", "--hardware", "zero-a10g", "--private"], hub, tmp_path, "secret")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("/spaces/me/demo")
    asked = hub.repositories["spaces/me/demo"]
    assert asked["sdk"] == "gradio" and asked["hardware"] == "zero-a10g"
    sent = {address.removeprefix(start): body for address, body in hub.files.items()}
    wanted = {
        str(path.relative_to(tmp_path / "staged")): path.read_bytes()
        for path in (tmp_path / "staged").rglob("*")
        if path.is_file()
    }
    assert sent == wanted
    # Weights go the way of large files.
    assert len(hub.large) == len([name for name in wanted if name.endswith(".safetensors")])


def test_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    with running_hub() as hub:
        told = uploaded(["demo"], hub, tmp_path, "secret")
        assert told.returncode == 2 and told.stderr == "'demo' is no name of a Space; give OWNER/NAME.\n"
        assert hub.requests == []


# --- ZeroGPU ---------------------------------------------------------------------------------------------


def pickled(value: Any) -> Any:
    import pickle

    return pickle.loads(pickle.dumps(value))


class SpacesStandIn(types.ModuleType):
    """Stands in for the package `spaces`: what crosses the border is pickled, as it is there."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.durations: list[int] = []
        self.crossed: list[Any] = []

    def GPU(self, duration: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        self.durations.append(duration)

        def decorate(work: Callable[..., Any]) -> Callable[..., Any]:
            import inspect

            if inspect.isgeneratorfunction(work):

                @wraps(work)
                def stepwise(*args: Any) -> Iterator[Any]:
                    for step in work(*pickled(args)):
                        self.crossed.append(step)
                        yield pickled(step)

                return stepwise

            @wraps(work)
            def at_once(*args: Any) -> Any:
                self.crossed.append(answer := work(*pickled(args)))
                return pickled(answer)

            return at_once

        return decorate


def is_plain(value: Any) -> bool:
    """NumPy, numbers, text and containers of them: nothing that holds a GPU or a model."""
    from ovseg_demo.progress import Progress

    if isinstance(value, dict):
        return all(is_plain(part) for part in value.values())
    if isinstance(value, tuple | list):
        return all(is_plain(part) for part in value)
    return value is None or isinstance(value, np.ndarray | int | float | str | Progress)


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> SpacesStandIn:
    from ovseg_demo.page.server import zero_gpu

    stand_in = SpacesStandIn()
    monkeypatch.setattr(zero_gpu, "spaces", stand_in)
    return stand_in


def test_what_happens_on_the_gpu_gives_the_same_result(spaces: SpacesStandIn) -> None:
    import torch
    from test_segmenter import Quarters

    from ovseg_demo.clip import MaskAdaptedCLIP
    from ovseg_demo.clip.mini import CROP_RECIPE, MiniConfig, MiniImageTower
    from ovseg_demo.clip.minilm import MiniTextTower
    from ovseg_demo.naming.classifier import Classifier
    from ovseg_demo.page.server.zero_gpu import SECONDS, ZeroGpuSegmenter
    from ovseg_demo.progress import Progress
    from ovseg_demo.segmenter import Segmenter
    from ovseg_demo.settings import Settings

    torch.manual_seed(0)
    tower = MiniImageTower(MiniConfig(width=64, layers=2), prompt_depth=2)
    clip = MaskAdaptedCLIP(
        tower, MiniTextTower(), embed_dim=768, crop_recipe=CROP_RECIPE, score_scale=20.0, name="tiny"
    ).eval()
    settings = Settings(max_side_px=64, templates="single")
    plain = Segmenter("tiny", Quarters(), settings=settings)
    far = ZeroGpuSegmenter("tiny", Quarters(), device="cpu", settings=settings)
    classifier = Classifier(clip)  # one for all, so that the names are embedded once
    for segmenter in (plain, far, far.gpu_segmenter):
        for arm in ("vanilla", "adapted"):
            segmenter.add_classifier(classifier, arm)
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    one, other = plain.compare(photo, "dog, sky"), far.compare(photo, "dog, sky")
    assert np.array_equal(one.second.label_map, other.second.label_map)
    assert [r.to_json() for r in one.first.regions] == [r.to_json() for r in other.first.regions]
    assert set(spaces.durations) == {SECONDS} and 0 < SECONDS <= 60
    crossings = len(spaces.crossed)
    assert crossings > 2 and all(is_plain(step) for step in spaces.crossed)
    drawn = [step.masks for step in spaces.crossed if isinstance(step, Progress) and step.masks is not None]
    assert [masks.shape for masks in drawn] == [(4, 48, 64)] * 2

    # Other words need no GPU: what it saw is kept here.
    far(photo, "cat, grass")
    assert len(spaces.crossed) == crossings

    # An arm that is asked for later is embedded on the GPU, too.
    second = np.ascontiguousarray(photo[::-1])
    far(second, "dog", "adapted")
    before = len(spaces.crossed)
    assert far(second, "dog", "vanilla").arm == "vanilla"
    assert len(spaces.crossed) == before + 1 and is_plain(spaces.crossed[-1])


def test_the_endpoint_for_proposals_finds_them_on_the_gpu(
    spaces: SpacesStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovseg_demo.page.api import Endpoints
    from ovseg_demo.settings import Settings

    monkeypatch.setattr(model_pool, "ON_ZERO_GPU", True)
    pool = model_pool.ModelPool(Settings(max_side_px=64, device="cpu"))
    told = Endpoints(pool).proposals(str(ROOT / "examples" / "coffee.jpg"), density="low")
    assert told["size"] == [43, 64] and told["proposals"]
    assert spaces.crossed and all(is_plain(step) for step in spaces.crossed)


def test_without_zerogpu_the_decorator_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovseg_demo.page.server import zero_gpu
    from ovseg_demo.page.server.model_pool import ON_ZERO_GPU, segmenter_type
    from ovseg_demo.segmenter import Segmenter

    def work() -> None:
        """Never called."""

    monkeypatch.setattr(zero_gpu, "spaces", None)
    assert zero_gpu.on_gpu(work) is work
    assert not ON_ZERO_GPU and segmenter_type() is Segmenter


def test_on_zerogpu_the_pool_takes_the_segmenter_that_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovseg_demo.page.server.zero_gpu import ZeroGpuSegmenter

    monkeypatch.setattr(model_pool, "ON_ZERO_GPU", True)
    assert model_pool.segmenter_type() is ZeroGpuSegmenter


def test_the_real_package_accepts_it() -> None:
    spaces = pytest.importorskip("spaces", reason="is on Spaces only")

    def work() -> Iterator[int]:
        yield 1

    assert spaces.GPU(duration=30)(work) is work
