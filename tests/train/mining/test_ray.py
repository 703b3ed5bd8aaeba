"""Mining and segmenting on a local Ray cluster of two workers: the same output as one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg_demo.errors import SettingsError
from ovseg_demo.ray_backend import on_ray

ROOT = Path(__file__).resolve().parents[3]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # A cluster of this machine alone, with two processors whatever it has.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    start = (
        "import runpy, sys, warnings; warnings.simplefilter('ignore'); import ray; "
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR'); "
        "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | quiet
    return subprocess.run(
        [sys.executable, "-c", start, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )


def test_mining_on_two_workers_writes_the_same(scenes: Path, small_clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ovseg-demo[scale]'")
    from train.mine_pairs import main
    from train.mining.settings import MineSettings

    numbers = {"proposal_size": 256, "chunk": 2, "shard_chunks": 2, "least_photos": 1, "baseline_photos": 2}
    places = {"captions": scenes / "captions.csv", "images": scenes / "images", "model": str(small_clip)}
    main(MineSettings(work=tmp_path / "a", out=tmp_path / "one", **places, **numbers))  # type: ignore[arg-type]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**places, **numbers}.items()]
    folders = [f"--work={tmp_path / 'b'}", f"--out={tmp_path / 'two'}"]
    done = run("train.mine_pairs", *options, *folders, "--engine=ray", "--workers=2")
    assert done.returncode == 0, done.stderr
    one, two = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}
        for name in ("one", "two")
    )
    assert one == two
    assert "manifest.json" in one


def test_segmenting_a_folder_on_two_workers_writes_the_same(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ovseg-demo[scale]'")
    from ovseg_demo.cli import main

    options = ["segment", str(scenes / "images"), "--vocabulary", "ball, grass"]
    assert main([*options, "--out", str(tmp_path / "one")]) == 2  # one photo cannot be read
    done = run("ovseg_demo", *options, "--out", str(tmp_path / "two"), "--engine", "ray", "--workers", "2")
    assert done.returncode == 2
    assert "broken.png: " in done.stderr
    assert done.stdout.count("found:") == 4 + done.stdout.count("not found:")
    for folder in ("red_ball", "blue_box", "white_ball", "black_box"):
        one, two = (tmp_path / name / folder for name in ("one", "two"))
        assert (one / "label_map.png").read_bytes() == (two / "label_map.png").read_bytes()
        facts = [json.loads((place / "result.json").read_text())["classes"] for place in (one, two)]
        assert facts[0] == facts[1]


def test_fewer_than_one_worker_is_refused() -> None:
    with pytest.raises(SettingsError, match="--workers must be at least 1, not 0"):
        list(on_ray(dict, [{}], 0))
