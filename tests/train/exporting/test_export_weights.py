"""Exported weights: the demo's layout and its card, published forms and back, the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ovseg_demo.clip import load_clip
from ovseg_demo.clip.checkpoints import PROMPTS, read_entries
from ovseg_demo.clip.minilm import text_digest
from ovseg_demo.errors import CheckpointError, OutputError, SettingsError
from tests.hub_server import running_hub
from tests.train.synthetic_pairs import write_pairs, write_vit
from train.data.sources import DataError
from train.export import export
from train.exporting.settings import ExportSettings
from train.exporting.upload import push
from train.exporting.weights import read_hashes
from train.finetune import FinetuneSettings, finetune
from train.prompt_tune import PromptTuneSettings, prompt_tune

ROOT = Path(__file__).resolve().parents[3]
REPORT = {
    "data_set": "drawn",
    "photos": 8,
    "settings": {"masks": "truth", "merge": "benchmark"},
    "arms": {
        "vanilla": {"miou": 20.1, "top1": 30.0, "intervals": {"miou": [18.0, 22.0]}},
        "adapted": {"miou": 25.1, "intervals": {"miou": [None, None]}},
    },
}


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("vit") / "tiny.pt")


@pytest.fixture(scope="session")
def run(vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP that was fine-tuned and prompt-tuned for two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = (write_pairs(folder / "pairs", 16),)
    shared = {"model": str(vit), "batch": 8, "steps": 2, "distil": 0.0}
    finetune(FinetuneSettings(pairs, folder / "ft", **shared))  # type: ignore[arg-type]
    prompt_tune(PromptTuneSettings(pairs, folder / "mpt", start=folder / "ft", **shared))  # type: ignore[arg-type]
    return folder / "mpt"


def test_the_folder_is_what_the_demo_loads(run: Path, vit: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "figures.json"
    metrics.write_text(json.dumps(REPORT))
    out = tmp_path / "my-clip"
    export(ExportSettings(run, out, metrics=(metrics,)))
    names = {
        "adapted.safetensors",
        "vanilla.safetensors",
        "config.json",
        "README.md",
        "SHA256SUMS",
        "run.json",
    }
    assert {path.name for path in out.iterdir()} == names
    adapted, vanilla = load_clip(out), load_clip(out, weights="vanilla")
    theirs = load_clip(run).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in adapted.state_dict().items())
    assert adapted.has_prompts and not vanilla.has_prompts
    crops, masks = torch.randn(3, 3, 32, 32), torch.ones(3, 32, 32)
    torch.testing.assert_close(
        vanilla.encode_regions(crops, masks), load_clip(vit).encode_regions(crops, masks)
    )
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["patch"], config["grid"]) == ("clip-vit", 8, 4)
    assert config["prompt_depth"] == 3
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=out, check=True, capture_output=True)


def test_the_card_tells_how_the_weights_were_made(run: Path, vit: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "figures.json"
    metrics.write_text(json.dumps(REPORT))
    out = tmp_path / "out"
    export(ExportSettings(run, out, title="A drawn CLIP", metrics=(metrics,), licence="Free for all."))
    card = (out / "README.md").read_text()
    first, second = (card.index(f"python -m train.{name} --pairs") for name in ("finetune", "prompt_tune"))
    assert first < second, "in the order in which they ran"
    assert f"From the vanilla weights of `{vit}`" in card
    assert "batch 8" in card and "16 region-noun pairs" in card
    assert "| drawn, 8 photos | truth | benchmark | vanilla | 20.1 | 18.0 to 22.0 | 30.0 |" in card
    assert "| adapted | 25.1 |  |  |" in card
    for name, digest in read_hashes(out).items():
        assert f"| `{name}` | `{digest}` |" in card
    assert card.startswith("---\nlicense: other\n") and "# A drawn CLIP" in card and "Free for all." in card


def test_exported_once_more_it_is_the_same(run: Path, tmp_path: Path) -> None:
    export(ExportSettings(run, tmp_path / "one"))
    export(ExportSettings(tmp_path / "one", tmp_path / "two"))
    for path in (tmp_path / "one").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_mini_folder_holds_both_arms(small_clip: Path, tmp_path: Path) -> None:
    model = shutil.copytree(small_clip, tmp_path / "model")
    notes = {"names": '["dog"]', "text_tower": text_digest(load_clip(model, weights="vanilla").text_tower)}  # type: ignore[arg-type]
    save_file({"vild": torch.ones(1, 384).half()}, model / "names.safetensors", notes)
    pairs = (write_pairs(tmp_path / "pairs", 16),)
    run = tmp_path / "run"
    prompt_tune(PromptTuneSettings(pairs, run, model=str(model), batch=8, steps=2, depth=1))
    out = tmp_path / "out"
    export(ExportSettings(run, out))
    config = json.loads((out / "config.json").read_text())
    assert set(config["score_scale"]) == {"vanilla", "adapted"}
    assert (out / "vanilla.safetensors").read_bytes() == (small_clip / "vanilla.safetensors").read_bytes()
    adapted, vanilla = load_clip(out), load_clip(out, weights="vanilla")
    assert adapted.has_prompts and not vanilla.has_prompts
    assert set(adapted.known_names) == {("dog", "vild")}
    with pytest.raises(CheckpointError, match="is an ovseg-mini, which no published form can hold"):
        export(ExportSettings(out, tmp_path / "x.pt", form="ovseg"))


# --- published forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("form", ["openai", "ovseg"])
def test_there_and_back_keeps_every_bit(tmp_path: Path, form: str, kind: torch.dtype) -> None:
    weights = torch.load(write_vit(tmp_path / "clip.pt", prompts=3), weights_only=True)
    named = {k: v.to(kind) if v.is_floating_point() else v for k, v in weights.items() if k != "attn_mask"}
    torch.save(
        {"epoch": 5, "name": "x", "state_dict": {f"module.{k}": v for k, v in named.items()}},
        tmp_path / "a.pt",
    )
    export(ExportSettings(tmp_path / "a.pt", tmp_path / "demo"))
    export(ExportSettings(tmp_path / "demo", tmp_path / "b.pt", form=form))  # type: ignore[arg-type]
    export(ExportSettings(tmp_path / "b.pt", tmp_path / "again"))
    entries = read_entries(tmp_path / "b.pt")
    assert entries.keys() == named.keys()
    assert PROMPTS in entries
    for key, value in named.items():
        assert entries[key].dtype == value.dtype
        assert torch.equal(entries[key], value)
    files = [tmp_path / name / "adapted.safetensors" for name in ("demo", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_ovsegs_form_is_the_published_one(tmp_path: Path) -> None:
    write_vit(tmp_path / "clip.pt", prompts=3)
    export(ExportSettings(tmp_path / "clip.pt", tmp_path / "b.pt", form="ovseg"))
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    # The published loader throws names without the prefix away.
    assert all(key.startswith("module.") for key in content["state_dict"])
    assert content["state_dict"]["module.visual.mask_embedding"].shape == (3, 16, 64)
    assert content["state_dict"]["module.visual.conv1.weight"].shape == (64, 3, 8, 8)


# --- the hub ----------------------------------------------------------------------------------------------


def pushed(weights: Path, out: Path, endpoint: str, token: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.export", "--weights", str(weights), "--out", str(out)]
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    place = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(out.parent / "home")}
    return subprocess.run(
        [*command, "--push-to-hub", "me/drawn", "--private"],
        cwd=ROOT,
        env={**os.environ, **quiet, **place},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_what_is_uploaded_is_the_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub() as hub:
        hub.token = "secret"
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(OutputError, match=r"could not be uploaded to me/drawn: [^\n]+$"):
            push(run, "me/drawn")
        assert not hub.repositories
        done = pushed(run, tmp_path / "out", hub.endpoint, "secret")
        assert done.returncode == 0, done.stderr
        assert f"Uploaded to {hub.endpoint}/me/drawn" in done.stdout
    assert hub.repositories["me/drawn"]["visibility"] == "private"
    start = "me/drawn/resolve/main/"
    sent = {address.removeprefix(start): body for address, body in hub.files.items()}
    assert sent == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}


# --- bad input --------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_told(run: Path, vit: Path, tmp_path: Path) -> None:
    settings = ExportSettings(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"nowhere is missing: give a checkpoint, or the folder"):
        export(settings)
    (tmp_path / "figures.json").write_text("[]")
    with pytest.raises(DataError, match=r"is not what train\.evaluate --json writes"):
        export(replace(settings, weights=vit, metrics=(tmp_path / "figures.json",)))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        export(ExportSettings(vit, tmp_path / "file" / "out"))
    with pytest.raises(SettingsError, match="leave out --form openai"):
        ExportSettings(vit, tmp_path, form="openai", push_to_hub="me/it")
    with pytest.raises(SettingsError, match="OWNER/NAME, not 'it'"):
        ExportSettings(vit, tmp_path, push_to_hub="it")
