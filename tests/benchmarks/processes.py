"""Measurements in a process of its own: memory of a large photo, time until the page answers."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_START_S = 180.0

_ONE_PHOTO = """
import sys
from ovseg_demo import Segmenter
from ovseg_demo.output.rendering import overlay
both = Segmenter.from_pretrained("ovseg-mini").compare(sys.argv[1], "street, house, sky, person, tree, car")
picture = overlay(both.second)
from train.benchmark import peak_memory_bytes
print(len(both.second.regions), *picture.shape, peak_memory_bytes("cpu"))
"""


def memory_of_photo_bytes(width: int, height: int) -> int:
    """Most memory that a process holds which segments one photo of this size under both arms."""
    photo = Image.open(ROOT / "examples" / "street.jpg").convert("RGB").resize((width, height))
    noise = np.random.default_rng(0).integers(-8, 9, (height, width, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=92)
        run = subprocess.run(
            [sys.executable, "-c", _ONE_PHOTO, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    return int(run.stdout.split()[-1])


def page_start_s() -> dict[str, Any]:
    """Seconds from `python app.py` until the page and its configuration are served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    page = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/", page)
        wait_for(f"http://127.0.0.1:{port}/config", page)
        seconds = time.perf_counter() - started
    finally:
        page.terminate()
        page.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "cpu": round(cpu, 2)}


def wait_for(address: str, page: subprocess.Popen[bytes]) -> None:
    """Until the address is served.

    Raises:
        RuntimeError: the process has ended, or it takes too long.
    """
    started = time.perf_counter()
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                answer.read()
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if page.poll() is not None or time.perf_counter() - started > _LONGEST_START_S:
                raise RuntimeError(f"The page did not answer at {address}.") from None
            time.sleep(0.05)
