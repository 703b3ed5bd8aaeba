"""Start of a training process on a large folder of region-noun pairs: seconds and memory.

    python -m tests.benchmarks.pair_folder --pairs 100000 --times 13

The folder of tiny crops is written to the folder of temporary files and removed. The first start reads its
shards and writes the index. For --times above 1 the shards are linked under further names and the index lists
them all, so that a large folder can be measured without writing it. Starts run in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovseg_demo.files import file_sha256
from tests.benchmarks.processes import ROOT
from tests.benchmarks.readme import table
from train.data import pair_index
from train.data.pair_folder import PairFolder
from train.data.shards import cut_pair, read_manifest, shard_bytes, write_manifest

_PER_SHARD = 10_000
_PER_PHOTO = 5
_NOUNS = 900


def write_folder(folder: Path, pairs: int) -> None:
    """A folder of so many pairs in shards of ten thousand, five a photo, a quarter with a synonym."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    drawn = [
        cut_pair(
            image,
            np.ones((16, 16), bool),
            noun=f"noun {row % _NOUNS}",
            photo=f"drawn/NUMBER_{row // _PER_PHOTO}",
            score=0.3 + row % 7 / 10,
            cosine=0.3,
            margin=0.1,
            quality=0.9,
            synonyms=[f"noun {(row + 450) % _NOUNS}"] if row % 4 == 0 else [],
            photo_path=f"photos/NUMBER/{row // _PER_PHOTO:06d}.jpg",
        )
        for row in range(min(pairs, _PER_SHARD))
    ]
    # Every shard has photos of its own; their number is as long as the word it replaces.
    template = shard_bytes(drawn, name="pairs", image_format="jpeg")
    listed = []
    for number in range(-(-pairs // _PER_SHARD)):
        path = folder / f"pairs_{number:06d}.tar"
        path.write_bytes(template.replace(b"NUMBER", b"%06d" % number))
        listed.append({"name": path.name, "pairs": len(drawn), "sha256": file_sha256(path)})
    write_manifest(folder, {"shards": listed})


def multiply(folder: Path, times: int) -> None:
    """Link the shards under further names, and list them in manifest and index."""
    index = folder / pair_index.INDEX
    listed = [(shard, "pairs") for shard in read_manifest(folder)["shards"]]
    paths = [folder / shard["name"] for shard, _ in listed]
    columns = pair_index.read_columns(index, pair_index.index_key(listed, paths))
    assert columns is not None
    count = int(columns["texts.starts"].size) - 1
    more: dict[str, Any] = dict(columns)
    for name, value in columns.items():
        if name.endswith(".starts") and not name.startswith("unlabeled"):
            lengths = np.tile(np.diff(value), times)
            more[name] = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        elif not name.startswith("unlabeled"):
            more[name] = np.concatenate([value] * times)
    steps = np.repeat(np.arange(times, dtype=np.int32), len(columns["named/shard"]))
    more["named/shard"] += steps * len(paths)
    more["named/photo"] += steps * count
    for number, (shard, _) in enumerate(listed * (times - 1), start=len(paths)):
        name = f"pairs_{number:06d}.tar"
        os.link(folder / shard["name"], folder / name)
        listed.append(({**shard, "name": name}, "pairs"))
        paths.append(folder / name)
    write_manifest(folder, {"shards": [shard for shard, _ in listed]})
    pair_index.write_columns(index, pair_index.index_key(listed, paths), more)


def open_folder(folder: Path) -> dict[str, Any]:
    """Open the folder in this process and read 200 crops anywhere in it."""
    before = memory_mb()
    started = time.perf_counter(), time.process_time()
    pairs = PairFolder(folder)
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    after = memory_mb()
    rows = np.random.default_rng(1).integers(0, len(pairs), 200).tolist()
    reading = time.process_time()
    for row in rows:
        pairs.crop(row)
    return {
        "pairs": len(pairs),
        "seconds": round(seconds, 2),
        "CPU seconds": round(cpu, 2),
        "own memory, MB": round(after["RssAnon"] - before["RssAnon"]),
        "shared, MB": round(after["RssFile"] - before["RssFile"]),
        "peak, MB": round(after["VmHWM"] - before["VmHWM"]),
        "CPU ms a crop": round(1000 * (time.process_time() - reading) / len(rows), 2),
    }


def memory_mb() -> dict[str, float]:
    """Memory of this process: its own, mapped from files, and the most it held (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile", "VmHWM")}


def measured_start(folder: Path) -> dict[str, Any]:
    """`open_folder` in a process of its own."""
    code = (
        "import json, sys; from pathlib import Path; from tests.benchmarks.pair_folder import open_folder; "
        "print(json.dumps(open_folder(Path(sys.argv[1]))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder, measure both starts and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=13)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, options.pairs)
        rows = {"first, writes the index": measured_start(folder)}
        rows["second, reads it"] = measured_start(folder)
        if options.times > 1:
            multiply(folder, options.times)
            rows[f"{options.times} times as many"] = measured_start(folder)
    columns = list(rows["second, reads it"])
    print(table(["start", *columns], [[start, *(row[c] for c in columns)] for start, row in rows.items()]))


if __name__ == "__main__":
    main()
