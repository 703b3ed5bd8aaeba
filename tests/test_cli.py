"""The command line: results where they were asked for, and one line for each thing that went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_demo import Segmenter
from ovseg_demo.cli import main
from ovseg_demo.corrections import CorrectedRegion, corrections_to_json
from ovseg_demo.models import default_arm

EXAMPLES = Path(__file__).parent.parent / "examples"
COFFEE, COW = EXAMPLES / "coffee.jpg", EXAMPLES / "cow.jpg"
RESULT = {"overlay.png", "label_map.png", "result.json"}


def run(*arguments: str | Path) -> int:
    """Run the program in this process; its exit code."""
    return main([str(argument) for argument in arguments])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    written = capsys.readouterr().err
    assert written.count("\n") == 1, written
    return written.strip()


def test_help_loads_neither_torch_nor_gradio() -> None:
    code = """
import sys
from ovseg_demo.cli import main
from ovseg_demo.models import default_arm
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert stop.code == 0
assert not {"torch", "gradio", "transformers"} & set(sys.modules)
"""
    for arguments in (["--help"], ["segment", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["segment"], "PHOTO"),
        (["segment", "a.jpg", "--out", "x"], "--vocabulary"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", " , "], "no name"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "preset:nothing"], "nothing"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "@no/such/file"], "No such file"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "a", "--weights", "best"], "best"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "a", "--merge", "sum"], "sum"),
        (["segment", "a.jpg", "--out", "x", "--memory", "no.safetensors"], "no.safetensors"),
        (["segment", "a.jpg", "b.jpg", "--out", "x", "--corrections", "c.json"], "of one photo and 2"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "a", "--formats", "gif"], "gif"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", "x" * 10_000], "xxx"),
        (["segment", "a.jpg", "--out", "x", "--vocabulary", ",".join(map(str, range(2000)))], "2,000"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert said in complaint(capsys)


def test_an_unknown_model_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", COFFEE, "--vocabulary", "cup", "--out", "x", "--model", "clip-vit-z") == 2
    assert "clip-vit-z" in complaint(capsys)


def test_help_shows_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PROPOSER", "MODEL"):
        monkeypatch.setenv(f"OVSEG_{name}", f"100%-{name.lower()}.pt")
    with pytest.raises(SystemExit) as done:
        run("segment", "--help")
    assert done.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    assert all(f"100%-{name}.pt)" in shown for name in ("proposer", "model"))


def test_a_folder_without_photos_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", tmp_path, "--vocabulary", "cup", "--out", tmp_path / "x") == 2
    assert "no photos" in complaint(capsys)


def test_hidden_files_of_a_folder_are_no_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "._cow.jpg").write_bytes(b"what macOS leaves on foreign disks")
    (tmp_path / "album.jpg").mkdir()
    assert run("segment", tmp_path, "--vocabulary", "cup", "--out", tmp_path / "x") == 2
    assert "no photos" in complaint(capsys)


@pytest.mark.parametrize("option", ["PHOTO", "--model"])
def test_a_path_that_no_system_takes_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    photo, model = ("x" * 5000, "ovseg-mini") if option == "PHOTO" else (COFFEE, "x" * 5000)
    assert run("segment", photo, "--vocabulary", "cup", "--out", "x", "--model", model) == 2
    assert "xxx" in complaint(capsys)


def test_words_in_a_file_that_is_not_text_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("segment", COFFEE, "--vocabulary", f"@{COFFEE}", "--out", "x") == 2
    assert "not UTF-8 text" in complaint(capsys)


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    listed = capsys.readouterr().out
    for name in ("ovseg-mini", "clip-vit-b-16", "clip-vit-l-14", "ovseg-vit-l-14"):
        assert name in listed


def test_one_photo_writes_straight_into_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("cup | mug\nzebra\n", encoding="utf-8")
    out = tmp_path / "result"
    assert run("segment", COFFEE, "--vocabulary", f"@{words}", "--out", out, "--formats", "coco,zip") == 0
    assert {p.name for p in out.iterdir()} == RESULT | {"coco.json", "coffee.zip"}
    told = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert [c["synonyms"] for c in told["classes"]] == [["cup", "mug"], ["zebra"]]
    assert told["arm"] == default_arm("ovseg-mini") and told["models"] and told["settings"]
    label_map = np.asarray(Image.open(out / "label_map.png"))
    assert label_map.shape == (400, 600) and set(np.unique(label_map)) <= {0, 1, 2}
    summary = capsys.readouterr().out
    assert "coffee.jpg" in summary and "found" in summary


def test_several_photos_get_a_folder_each_and_a_bad_one_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for place in (photos / "cup.jpg", photos / "more" / "cup.jpg"):
        Image.open(COFFEE).resize((160, 120)).save(place)
    (photos / "bad.png").write_bytes(b"this is no picture")
    out = tmp_path / "result"
    code = run("segment", photos, photos / "more" / "cup.jpg", "--vocabulary", "cup", "--out", out)
    assert code == 2
    assert {p.name for p in out.iterdir()} == {"cup", "cup-2", "review.json"}
    assert all({p.name for p in (out / name).iterdir()} == RESULT for name in ("cup", "cup-2"))
    review = json.loads((out / "review.json").read_text(encoding="utf-8"))
    assert isinstance(review, list) and {Path(one["photo"]).name for one in review} <= {"cup.jpg"}
    assert "bad.png: " in complaint(capsys)


def test_both_arms_lie_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result"
    assert run("segment", COFFEE, "--vocabulary", "cup, table", "--weights", "both", "--out", out) == 0
    assert {p.name for p in out.iterdir()} == RESULT | {"vanilla", "comparison.png", "comparison.json"}
    arms = [
        json.loads((f / "result.json").read_text(encoding="utf-8"))["arm"] for f in (out, out / "vanilla")
    ]
    assert arms == ["adapted", "vanilla"]
    said = capsys.readouterr().out
    assert "adapted finds" in said
    total = json.loads((out / "result.json").read_text(encoding="utf-8"))["timings"]["total"]
    assert f"({total:.1f} s)" in said  # of the request, in which both arms were made


def test_any_arms_are_written_beside_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, arms = tmp_path / "result", ("no-prompts", "vanilla", "adapted")
    assert run("segment", COFFEE, "--vocabulary", "cup, table", "--out", out, "--weights", *arms) == 0
    assert {p.name for p in out.iterdir()} == RESULT | {"no-prompts", "vanilla"}
    for folder, arm in ((out, "adapted"), (out / "vanilla", "vanilla"), (out / "no-prompts", "no-prompts")):
        assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["arm"] == arm
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:]] == ["adapted", "vanilla", "no-prompts"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        # Before anything is loaded: there is no such model.
        options = ["--vocabulary", "cup", "--out", place, "--model", tmp_path / "none.pt"]
        assert run("segment", COFFEE, *options) == 2
        assert "cannot be written to" in complaint(capsys)


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "ovseg_demo", "segment", str(COFFEE)]
    for further, missing in ([], "--out"), (["--out", "result"], "--vocabulary"):
        done = subprocess.run([*command, *further], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and missing in done.stderr


def test_the_installed_program_runs_away_from_its_checkout(tmp_path: Path) -> None:
    alone = [sys.executable, "-I"]  # neither the current folder nor the environment adds to what is found
    if subprocess.run([*alone, "-c", "import ovseg_demo"], capture_output=True).returncode:
        pytest.skip("ovseg-demo is not installed here, only its requirements are")
    command = [*alone, "-m", "ovseg_demo", "segment", str(COFFEE), "--vocabulary", "cup", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= RESULT


def test_corrections_go_in_and_out_again(tmp_path: Path) -> None:
    mask = np.zeros((400, 600), bool)
    mask[40:220, 160:400] = True
    regions = [CorrectedRegion.of(mask, "my cup"), CorrectedRegion.of(mask & (np.arange(600) < 200), None)]
    given, out, again = tmp_path / "c.json", tmp_path / "out", tmp_path / "again"
    given.write_text(json.dumps(corrections_to_json(regions)))
    formats = ["--formats", "corrections,coco"]
    assert run("segment", COFFEE, "--corrections", given, "--out", out, *formats) == 0
    facts = json.loads((out / "result.json").read_text("utf-8"))
    assert [c["name"] for c in facts["classes"]] == ["my cup"]
    with Image.open(out / "label_map.png") as picture:
        labels = np.asarray(picture)
    assert (labels[regions[1].mask] == 0).all() and (labels[mask & ~regions[1].mask] == 1).all()
    assert run("segment", COFFEE, "--corrections", out / "coco.json", "--out", again, *formats) == 0
    with Image.open(again / "label_map.png") as picture:
        assert (np.asarray(picture) == labels).all()


def test_a_memory_brings_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segmenter = Segmenter.from_pretrained("ovseg-mini")
    mask = np.zeros((400, 600), bool)
    mask[40:220, 160:400] = True
    arm = default_arm("ovseg-mini")
    memory = segmenter.remember(COFFEE, [CorrectedRegion.of(mask, "my cup")], [arm])
    memory.save(tmp_path / "memory.safetensors")
    out = tmp_path / "out"
    options = ["--memory", tmp_path / "memory.safetensors", "--out", out]
    assert run("segment", COFFEE, *options) == 0
    facts = json.loads((out / "result.json").read_text("utf-8"))
    assert [c["name"] for c in facts["classes"]] == ["my cup"] and facts["settings"]["memory"] == 1
    assert all(region["nearest_example"]["name"] == "my cup" for region in facts["regions"])
    capsys.readouterr()
    assert run("segment", COFFEE, *options, "--weights", "vanilla") == 2
    assert "nothing of the arm vanilla" in complaint(capsys)
