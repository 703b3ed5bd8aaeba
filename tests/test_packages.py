"""Without the package transformers the default models work, and what needs it says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg_demo.errors import ModelError
from ovseg_demo.packages import TRANSFORMERS, needs_transformers
from ovseg_demo.proposals import load_proposer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of transformers fail, and so do those of our modules that were made of it."""
    for name in list(sys.modules):
        if name.split(".")[0] == "transformers" or name.startswith("ovseg_demo.proposals.maskformer"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)


def told(error: ModelError, what: str) -> bool:
    """Whether the message is the sentence that says what to install; visitors get one without it."""
    sentence = f'{what} needs the package transformers; run: pip install "{TRANSFORMERS}".'
    return str(error) == sentence and "pip" not in error.public and error.public.startswith(what)


def test_what_to_install_is_what_is_required() -> None:
    assert TRANSFORMERS in (ROOT / "requirements.txt").read_text("utf-8").splitlines()


@pytest.mark.usefixtures("without_transformers")
@pytest.mark.parametrize("name", ["maskformer", "maskformer-r101c", "maskformer-swin-base-coco"])
def test_a_maskformer_says_what_to_install_before_anything_is_downloaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_proposer(name, cache_dir=tmp_path)
    assert told(caught.value, name)
    with pytest.raises(ModelError) as caught:  # nor is a file of weights opened
        load_proposer(name, weights=tmp_path / "absent.pth", cache_dir=tmp_path)
    assert told(caught.value, name)


@pytest.mark.usefixtures("without_transformers")
def test_sam2_says_what_to_install_from_the_hub_and_from_a_folder(tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes(b"{}")
    for name in ("hf-hub:facebook/sam2.1-hiera-tiny", str(tmp_path)):
        with pytest.raises(ModelError) as caught:
            load_proposer(name, cache_dir=tmp_path / "cache")
        assert told(caught.value, "SAM 2.1")


@pytest.mark.usefixtures("without_transformers")
def test_a_clip_in_transformers_form_says_what_to_install(tmp_path: Path) -> None:
    from ovseg_demo.clip.transformers_clip import open_clip_config

    with pytest.raises(ModelError) as caught:
        open_clip_config({"model_type": "clip"}, "hf-hub:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M")
    assert told(caught.value, "hf-hub:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M")


def test_an_older_one_without_the_class_is_told_the_same() -> None:
    with pytest.raises(ModelError) as caught, needs_transformers("SAM 2.1"):
        from transformers import NoSuchModel  # noqa: F401
    assert told(caught.value, "SAM 2.1")


def test_other_failed_imports_stay_what_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), needs_transformers("SAM 2.1"):
        import no_such_package  # noqa: F401


def test_the_command_line_names_regions_without_it_and_tells_what_needs_it(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['transformers'] = None; from ovseg_demo.cli import main; "
    photo = str(ROOT / "examples" / "coffee.jpg")
    environment = {**os.environ, "OVSEG_MAX_SIDE_PX": "96"}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        call = ["segment", photo, "--vocabulary", "cup", "--out", str(tmp_path / "out"), *options]
        code = f"{hidden}sys.exit(main({call}))"
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "result.json").is_file()
    refused = run("--proposer", "hf-hub:facebook/sam2.1-hiera-tiny")
    assert refused.returncode != 0 and f'run: pip install "{TRANSFORMERS}"' in refused.stderr
    assert "Traceback" not in refused.stderr
