"""Requests a minute and how long visitors wait, through the real page and its queue.

    python -m tests.benchmarks.serve --clients 1 4 16 --requests 2 --json serve.json --chart serve.png

`python app.py` runs in a process of its own; every client is a thread with a gradio_client that asks for
/segment and asks again when it has its answer. "photos" sends another photo each time, "words" stays with a
photo that the demo has seen and changes the words.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

from tests.benchmarks.machine import facts
from tests.benchmarks.plots import Lines, draw_lines
from tests.benchmarks.processes import ROOT, wait_for
from tests.benchmarks.readme import measured, table, write_section

PHOTOS = ("street", "dogs", "horses", "room", "cow", "mountains", "coffee")
WORDS = (
    "dog",
    "grass",
    "sky",
    "tree",
    "person",
    "horse",
    "car",
    "building",
    "sofa",
    "mountain",
    "cup",
    "road",
)
SIDE_PX = 640


@contextmanager
def running_page() -> Iterator[str]:
    """The address of a page in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    page = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        wait_for(address, page)
        yield address
    finally:
        page.terminate()
        page.wait()


def photos(folder: Path, count: int) -> list[Path]:
    """`count` different files, SIDE_PX on their longer side: the examples, each time shifted a little."""
    made = []
    for number in range(count):
        picture = Image.open(ROOT / "examples" / f"{PHOTOS[number % len(PHOTOS)]}.jpg").convert("RGB")
        picture.thumbnail((SIDE_PX + 64, SIDE_PX + 64))
        shift = 1 + number // len(PHOTOS)
        picture = picture.crop((shift, shift, picture.width - 64 + shift, picture.height - 64 + shift))
        made.append(folder / f"{number}.jpg")
        picture.save(made[-1], quality=90)
    return made


def words(number: int) -> str:
    """Three words, other ones for the next number."""
    return ", ".join(WORDS[(3 * number + i) % len(WORDS)] for i in range(3))


def load(address: str, clients: int, requests: int, ask: Callable[[Client, int], Any]) -> dict[str, Any]:
    """Let so many clients ask so many times each; what they waited, in seconds."""
    visitors = [Client(address, verbose=False) for _ in range(clients)]
    waited: list[float] = []
    failed: list[str] = []
    together = threading.Barrier(clients + 1)

    def visit(visitor: Client, first: int) -> None:
        together.wait()
        for number in range(first, first + requests):
            started = time.perf_counter()
            try:
                ask(visitor, number)
                waited.append(time.perf_counter() - started)
            except Exception as error:  # whatever a visitor is told
                failed.append(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=visit, args=(visitor, i * requests)) for i, visitor in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    for visitor in visitors:
        visitor.close()
    p50, p90, p99 = np.percentile(waited, (50, 90, 99)) if waited else (float("nan"),) * 3
    return {
        "clients": clients,
        "answered": len(waited),
        "failed": failed,
        "per_minute": round(60 * len(waited) / seconds, 2),
        "p50_s": round(float(p50), 3),
        "p90_s": round(float(p90), 3),
        "p99_s": round(float(p99), 3),
        "longest_s": round(max(waited, default=float("nan")), 3),
    }


def measure(clients: Sequence[int], requests: int) -> list[dict[str, Any]]:
    """Every number of clients, with new photos and with new words."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, running_page() as address:
        files = photos(Path(folder), 1 + sum(clients) * requests)
        same, unseen = files[0], iter(files[1:])
        _warm_up(address, same)
        for count in clients:
            own = [next(unseen) for _ in range(count * requests)]

            def with_new_photo(visitor: Client, number: int, own: list[Path] = own) -> None:
                visitor.predict(handle_file(str(own[number])), words(0), api_name="/segment")

            def with_new_words(visitor: Client, number: int) -> None:
                visitor.predict(handle_file(str(same)), words(number), api_name="/segment")

            for kind, ask in (("photos", with_new_photo), ("words", with_new_words)):
                if kind == "words":
                    ask(Client(address, verbose=False), 0)  # the photo is seen again before it counts
                rows.append({"kind": kind, **load(address, count, requests, ask)})
                print(rows[-1], flush=True)
    return rows


def _warm_up(address: str, photo: Path) -> None:
    """The models are loaded and all words are known."""
    Client(address, verbose=False).predict(handle_file(str(photo)), ", ".join(WORDS), api_name="/segment")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve, ask, print the table, write JSON and chart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--clients", type=int, nargs="+", default=[1, 4, 16])
    add("--requests", type=int, default=2, help="of each client")
    add("--json", type=Path)
    add("--chart", type=Path, help="PNG")
    add("--readme", action="store_true", help="write the table into the README beside this file")
    options = parser.parse_args(arguments)
    rows = measure(options.clients, options.requests)
    columns = ("kind", "clients", "answered", "per_minute", "p50_s", "p90_s", "p99_s", "longest_s")
    print("".join(name.rjust(12) for name in columns))
    for row in rows:
        print("".join(str(row[name]).rjust(12) for name in columns))
    about = facts()
    if options.readme:
        told = measured(f"python -m tests.benchmarks.serve --requests {options.requests}", about)
        grid = table(columns, [[row[name] for name in columns] for row in rows])
        write_section("serve", f"{told}\n\n{grid}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", "utf-8")
    if options.chart:
        lines = {
            f"new {kind}": [(float(r["clients"]), float(r["p50_s"])) for r in rows if r["kind"] == kind]
            for kind in ("photos", "words")
        }
        below = f"{about['processor']}, {about['cores']} cores, {about['date']}"
        title = "Median wait through the queue"
        draw_lines(Lines(title, below, "clients", "seconds", lines, log_x=True, log_y=True), options.chart)


if __name__ == "__main__":
    main()
