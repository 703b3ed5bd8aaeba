"""The real server as a process of its own, and a client of its HTTP interface."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.robustness.workers import memory_now_mb

__all__ = ["Answer", "Server", "running_server"]

ROOT = Path(__file__).parents[2]
API = "/gradio_api"
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Answer:
    """What one call of an endpoint ended with."""

    ok: bool
    data: Any
    """The endpoint's results, or what was said instead."""
    status: int = 200

    @property
    def sentence(self) -> str:
        """What a person was told."""
        if isinstance(self.data, dict):
            return str(self.data.get("error") or self.data.get("detail") or "")
        return str(self.data)


@dataclass
class Server:
    """One running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    folder: Path
    """In it lie home, cache and temporary files of the server."""

    @property
    def memory_mb(self) -> float:
        """Resident now."""
        return memory_now_mb(self.process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def client(self, timeout_s: float = PATIENCE_S) -> httpx.Client:
        """A client of its own connections."""
        return httpx.Client(base_url=self.url, timeout=timeout_s)

    def counters(self) -> dict[str, float]:
        """The operator's numbers."""
        with self.client() as client:
            lines = client.get("/counters").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def upload(self, client: httpx.Client, content: bytes, name: str = "photo.jpg") -> str:
        """Where the server keeps the file."""
        reply = client.post(f"{API}/upload", files={"files": (name, content)})
        reply.raise_for_status()
        path: str = reply.json()[0]
        return path

    def ask(self, client: httpx.Client, endpoint: str, **arguments: Any) -> Answer | str:
        """Join the queue; returns the event's number, or the answer if there is one already."""
        reply = client.post(f"{API}/call/v2/{endpoint}", json=arguments)
        if reply.status_code != 200:
            return Answer(False, _json(reply), reply.status_code)
        event: str = reply.json()["event_id"]
        return event

    def read(self, client: httpx.Client, endpoint: str, event: str) -> Answer:
        """Wait for the end of an event."""
        kind = ""
        with client.stream("GET", f"{API}/call/{endpoint}/{event}") as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind in ("complete", "error"):
                    return Answer(kind == "complete", json.loads(line.removeprefix("data: ")))
        return Answer(False, "The connection ended without an answer.")

    def call(self, client: httpx.Client, endpoint: str, **arguments: Any) -> Answer:
        """Send a call and wait for its end."""
        asked = self.ask(client, endpoint, **arguments)
        return asked if isinstance(asked, Answer) else self.read(client, endpoint, asked)

    def segment(self, client: httpx.Client, photo: bytes, words: str, name: str = "photo.jpg") -> Answer:
        """Upload a photo and segment it with the defaults."""
        return self.call(client, "segment", photo=file(self.upload(client, photo, name)), words=words)

    def restart(self) -> None:
        """Kill the process at once and start another one with the same folders."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = _started(self.url, self.folder, self.log)
        _wait(self)


def file(path: str) -> dict[str, Any]:
    """An uploaded file as an argument."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return reply.text


@contextmanager
def running_server(folder: Path, **settings: object) -> Iterator[Server]:
    """The server with these settings, until the block ends.

    Args:
        folder: empty; becomes its home.
        settings: fields of the app's settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    (folder / "settings.json").write_text(json.dumps({k: str(v) for k, v in settings.items()}))
    log = folder / "server.log"
    server = Server(url, _started(url, folder, log), log, folder)
    try:
        _wait(server)
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def _started(url: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    settings = json.loads((folder / "settings.json").read_text())
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": url.rpartition(":")[2],
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "OVSEG_SECRET_FOR_PROBES": "the-environment-is-private",
        **{f"OVSEG_{name.upper()}": value for name, value in settings.items()},
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "app.py"],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _wait(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not server.alive:
            raise RuntimeError(f"the server ended: {server.log.read_text(errors='replace')[-2000:]}")
        try:
            if httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RuntimeError("the server does not answer")
