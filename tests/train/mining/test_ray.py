"""Mining and segmenting on a local Ray cluster of two workers: the same output as one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg_demo.cli import main as segment
from ovseg_demo.errors import SettingsError
from ovseg_demo.ray_backend import on_ray
from train.mine_pairs import main as mine
from train.mining.settings import MineSettings

ROOT = Path(__file__).resolve().parents[3]
PHOTOS = ("red_ball", "blue_box", "broken")
MINING = {"proposal_size": 256, "chunk": 2, "shard_chunks": 2, "least_photos": 1, "baseline_photos": 2}
# A cluster of this machine alone, with two processors whatever it has; it is started once for all commands.
DRIVER = """
import contextlib, io, json, runpy, sys, warnings
warnings.simplefilter("ignore")
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
done = []
for module, *options in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = [module, *options]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


def mining_options(scenes: Path, clip: Path) -> dict[str, object]:
    return {"captions": scenes / "captions.csv", "images": scenes / "images", "model": str(clip), **MINING}


def run(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each command."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | quiet
    command = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


def mine_command(scenes: Path, clip: Path, work: Path, out: Path) -> list[str]:
    options = {**mining_options(scenes, clip), "work": work, "out": out, "engine": "ray", "workers": 2}
    return ["train.mine_pairs", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


@pytest.fixture(scope="module")
def mined(scenes: Path, small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenes mined by this process: `work` and `out`."""
    folder = tmp_path_factory.mktemp("mined")
    mine(MineSettings(work=folder / "work", out=folder / "out", **mining_options(scenes, small_clip)))  # type: ignore[arg-type]
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_workers_mine_and_segment_as_one_process(
    scenes: Path, small_clip: Path, mined: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ovseg-demo[scale]'")
    # Of mining the last step; each step starts its own workers.
    shutil.copytree(mined / "work", tmp_path / "work")
    photos = [str(scenes / "images" / f"{name}.png") for name in PHOTOS]
    options = ["segment", *photos, "--vocabulary", "ball, grass"]
    on_two = [*options, "--out", str(tmp_path / "two"), "--engine", "ray", "--workers", "2"]
    (mined_code, _, mined_errors), (code, out, errors) = run(
        [
            mine_command(scenes, small_clip, tmp_path / "work", tmp_path / "pairs"),
            ["ovseg_demo", *on_two],
        ]
    )
    assert mined_code == 0, mined_errors
    assert contents(tmp_path / "pairs") == contents(mined / "out")
    assert "manifest.json" in contents(mined / "out")
    assert code == 2 and "broken.png: " in errors
    assert out.count("found:") == 2 + out.count("not found:")
    assert segment([*options, "--out", str(tmp_path / "one")]) == 2  # one photo cannot be read
    for folder in PHOTOS[:2]:
        one, two = (tmp_path / name / folder for name in ("one", "two"))
        assert (one / "label_map.png").read_bytes() == (two / "label_map.png").read_bytes()
        facts = [json.loads((place / "result.json").read_text())["classes"] for place in (one, two)]
        assert facts[0] == facts[1]


@pytest.mark.slow
def test_every_step_of_mining_runs_on_two_workers(
    scenes: Path, small_clip: Path, mined: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ovseg-demo[scale]'")
    ((code, _, errors),) = run([mine_command(scenes, small_clip, tmp_path / "work", tmp_path / "pairs")])
    assert code == 0, errors
    assert contents(tmp_path / "pairs") == contents(mined / "out")


def test_fewer_than_one_worker_is_refused() -> None:
    with pytest.raises(SettingsError, match="--workers must be at least 1, not 0"):
        list(on_ray(dict, [{}], 0))
