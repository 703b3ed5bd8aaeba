"""Part 7: memory that runs out, a GPU that fails, homes that cannot be written, odd clocks and languages."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ovseg_demo.clip.mini as mini
import ovseg_demo.proposals.mobile_sam as mobile_sam
import ovseg_demo.proposals.prompting as prompting
from ovseg_demo.errors import OvsegError
from ovseg_demo.page.handlers import Request, run
from ovseg_demo.page.server.model_pool import ModelPool
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
from tests.robustness.hostile_files import EXAMPLES
from tests.robustness.plan import Plan
from tests.robustness.table import Figure, is_sentence

__all__ = ["figures"]

ROOT = Path(__file__).parents[2]
PHOTO, WORDS = EXAMPLES / "coffee.jpg", "cup, table"


def figures(plan: Plan) -> list[Figure]:
    """Run the part."""
    # In float32: bfloat16 rounds parts of another size otherwise, and a mask at a threshold may go.
    with replaced(mobile_sam, "fast_dtype", lambda _: lambda device: torch.float32):
        segmenter = Segmenter.from_pretrained(settings=Settings(max_side_px=256), device="cpu")
        good = segmenter(PHOTO, WORDS).label_map
        return [*_memory(segmenter, good), *_time(), *_gpu(good), *_surroundings(plan)]


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """An attribute in another form until the block ends."""
    before = getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def _full_above(count: int, argument: int) -> Callable[[Any], Any]:
    """A function that has memory for `count` rows of one of its arguments."""

    def make(work: Any) -> Any:
        def limited(*args: Any, **kwargs: Any) -> Any:
            if len(args[argument]) > count:
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate too much."
                )
            return work(*args, **kwargs)

        return limited

    return make


def _memory(segmenter: Segmenter, good: np.ndarray[Any, Any]) -> Iterator[Figure]:
    stages = {
        "finding regions": (prompting.PointProposer, "_prompt", 2),
        "looking at regions": (mini.MiniImageTower, "trunk_patches", 1),
    }
    for stage, (owner, name, argument) in stages.items():
        segmenter.photos.clear()
        with replaced(owner, name, _full_above(3, argument)):
            agreement = float(np.mean(segmenter(PHOTO, WORDS).label_map == good))
        yield Figure(
            f"{stage} with little memory: same pixels", f"{agreement:.2%}", ">= 99.9 %", agreement >= 0.999
        )
        segmenter.photos.clear()
        with replaced(owner, name, _full_above(0, argument)):
            told = _told(segmenter)
        yield Figure(f"{stage} with none", told or "no error", "a sentence", is_sentence(told))
        agreement = float(np.mean(segmenter(PHOTO, WORDS).label_map == good))
        yield Figure("the request after that: same pixels", f"{agreement:.2%}", "100 %", agreement == 1)


def _told(segmenter: Segmenter) -> str:
    try:
        segmenter(PHOTO, WORDS)
    except OvsegError as error:
        return str(error)
    return ""


def _time() -> Iterator[Figure]:
    """A request over its time ends with a sentence, and nothing of it stays."""
    pool = ModelPool(Settings(max_side_px=256, timeout_s=1))
    segmenter = pool.get(pool.default)
    asked = Request(str(PHOTO), WORDS, True, pool.default.model, pool.default.proposer, "vild", "default")
    asked = replace(asked, max_side_px=256)

    def slowly(work: Any) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            time.sleep(1.1)
            return work(*args, **kwargs)

        return slow

    with replaced(prompting.PointProposer, "_prompt", slowly):
        last = list(run(asked, pool))[-1].payload
    told = str(last.get("message", ""))
    yield Figure(
        "a request over its time", told, "a sentence", "more than 1 seconds" in told and is_sentence(told)
    )
    left = pool.tracker.running + len(segmenter.photos) + pool.result_store.kept_bytes
    yield Figure("what stays of it", str(left), "0", left == 0)


def _gpu(good: np.ndarray[Any, Any]) -> Iterator[Figure]:
    """A GPU that fails while it works: everything goes on on the CPU, and the result says so."""
    # Without one: the models are where they can be, and the error is worded as torch words it.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    segmenter = Segmenter.from_pretrained(settings=Settings(max_side_px=256), device=device)
    segmenter.device = "cuda"
    failed: list[int] = []

    def make(work: Any) -> Any:
        def failing(*args: Any, **kwargs: Any) -> Any:
            if not failed:
                failed.append(1)
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return work(*args, **kwargs)

        return failing

    with replaced(prompting.PointProposer, "_prompt", make):
        result = segmenter(PHOTO, WORDS)
    notice = str(result.settings.get("notice", ""))
    agreement = float(np.mean(result.label_map == good))
    yield Figure("a GPU fails midway: same pixels", f"{agreement:.2%}", ">= 99.9 %", agreement >= 0.999)
    yield Figure("and the result says so", notice or "nothing", "a sentence", is_sentence(notice))


_ONE_REQUEST = """
import sys
from ovseg_demo.segmenter import Segmenter
from ovseg_demo.settings import Settings
result = Segmenter.from_pretrained(settings=Settings(max_side_px=128), device="cpu")(sys.argv[1], "cup")
print(result.label_map.shape == result.image.shape[:2])
"""
_ODD_CLOCK = "import time; time.time = lambda: {}.0\n"


def _surroundings(plan: Plan) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        read_only = Path(name) / "home"
        read_only.mkdir(mode=0o555)
        if os.geteuid() == 0:
            # Root may write anywhere but where the kernel says what there is.
            read_only = Path("/sys")
        broken = Path(name) / "broken"
        records = broken / ".cache" / "ovseg-demo" / "records"
        records.mkdir(parents=True)
        cases = {
            "a home that is a file": ({"HOME": "/dev/null"}, ""),
            "a home that is not there": ({"HOME": "/nonexistent"}, ""),
            "a home that cannot be written": ({"HOME": str(read_only)}, ""),
            "no home": ({}, ""),
            "a clock in 1970": ({"HOME": name}, _ODD_CLOCK.format(0)),
            "a clock in 2100": ({"HOME": name}, _ODD_CLOCK.format(4_102_444_800)),
            "a Turkish C locale": ({"HOME": name, "LC_ALL": "tr_TR", "LANG": "tr_TR", "PYTHONUTF8": "0"}, ""),
        }
        for case, (environment, before) in list(cases.items())[: None if plan.thorough else 1]:
            works = _works(environment, before)
            yield Figure(case, "works" if works else "fails", "works", works)
        assert _works({"HOME": str(broken)}, ""), "an ordinary request"
        kept = [path for path in records.parent.rglob("*") if path.is_file() and path.suffix != ".lock"]
        for path in kept:
            path.write_text("{ damaged", encoding="utf-8")
        works = _works({"HOME": str(broken)}, "")
        still = [path.name for path in kept if path.exists() and path.read_bytes().startswith(b"{ damaged")]
        yield Figure.none_of(len(kept), "damaged files of the cache that are kept", still)
        yield Figure("a request with a damaged cache", "works" if works else "fails", "works", works)


def _works(environment: dict[str, str], before: str) -> bool:
    keep = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + _ONE_REQUEST, str(PHOTO)],
        cwd=ROOT, env={**keep, **environment}, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    return done.stdout.strip() == "True"
