"""Parts 1, 5, 6 and 9 on the running server: files through the app, limits, probes, the log."""

from __future__ import annotations

import http.server
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.robustness import hostile_files as hostile
from tests.robustness.plan import Plan
from tests.robustness.server import API, ROOT, Answer, Server, file, running_server
from tests.robustness.table import Figure, is_sentence

__all__ = ["figures"]

SECRET_WORD, SECRET_FILE = "wolpertingerword", "wolpertingerfile"
FILE_LIMIT_S = 120.0
_NO_CHOICE = "is not in the list of choices"  # Gradio's own words

_READ_AS = (
    "{}", "/{}", "//{}", "./{}", "%2e%2e{}", "..%2f..%2f..%2f..%2f..{}", "../../../../../../../..{}",
    "..%252f..%252f..%252f..{}", "....//....//....//..{}", "{}%00.jpg", "{}?x=1", "{}%3fx.jpg", "file://{}",
    "file:{}", "%2f{}", "\\..\\..\\..{}", "/proc/self/root{}",
    "/proc/self/cwd/../../../..{}", "~/../../../..{}",
)  # fmt: skip
_FILE_ROUTES = (
    f"{API}/file=",
    f"{API}/file/",
    "/file=",
    "/file/",
    "/static/",
    "/assets/",
    f"{API}/proxy=",
    f"{API}/",
)


def figures(plan: Plan) -> list[Figure]:
    """Run the part on one server."""
    with tempfile.TemporaryDirectory() as name:
        settings = {
            "max_side_px": 256, "max_names": 50, "max_name_length": 40, "max_pixels": 2_000_000,
            "max_file_bytes": 3_000_000, "max_batch_bytes": 6_000_000, "max_request_bytes": 100_000,
            "state_lifetime_s": 20,
        }  # fmt: skip
        with running_server(Path(name) / "home", **settings) as server, server.client() as client:
            warm = server.segment(client, (hostile.EXAMPLES / "coffee.jpg").read_bytes(), "cup")
            assert warm.ok, f"the server cannot do an ordinary photo: {warm.sentence}"
            return [
                *_files(server, client, plan.files_through_app),
                *_limits(server, client),
                *_reading(server, client),
                *_fetching(server, client),
                *_exports(server, client),
                *_gone(server, client),
                *_log(server),
            ]


# --- files through the app --------------------------------------------------------------------------------


def _files(server: Server, client: httpx.Client, count: int) -> Iterator[Figure]:
    crafted = list(hostile.crafted().values())
    bad, slow, unclear = [], [], []
    for number in range(count):
        # Crafted files among them, as long as there are some.
        data = crafted[number // 2] if number % 2 and number // 2 < len(crafted) else hostile.mutated(number)
        started = time.monotonic()
        try:
            answer = server.segment(client, data[:2_900_000], "cup, sky", f"{SECRET_FILE}-{number}.jpg")
        except httpx.HTTPError as error:
            bad.append(f"{number}: {type(error).__name__}")
            continue
        if time.monotonic() - started > FILE_LIMIT_S:
            slow.append(f"{number}: {time.monotonic() - started:.0f} s")
        if not answer.ok and not is_sentence(answer.sentence):
            unclear.append(f"{number}: {answer.sentence}")
        if not server.alive or "went wrong" in answer.sentence:
            bad.append(f"{number}: {answer.sentence}")
    yield Figure.none_of(count, "files through the app: failures", bad)
    yield Figure.none_of(count, f"files through the app: over {FILE_LIMIT_S:.0f} s", slow)
    yield Figure.none_of(count, "files through the app: unclear refusals", unclear)


# --- limits -----------------------------------------------------------------------------------------------


def _limits(server: Server, client: httpx.Client) -> Iterator[Figure]:
    photo = (hostile.EXAMPLES / "coffee.jpg").read_bytes()
    path = file(server.upload(client, photo))
    wide = hostile.saved(Image.new("RGB", (2001, 1000)), "PNG")

    def said(**arguments: Any) -> Answer:
        return server.call(client, "segment", **{"photo": path, "words": "cup", **arguments})

    too_long = client.post(f"{API}/call/segment", content=b'{"data":["' + b"x" * 200_000 + b'"]}')
    too_large = client.post(f"{API}/upload", files={"files": ("a.jpg", bytes(3_100_000))})
    too_many = client.post(
        f"{API}/upload", files=[("files", (f"{i}.jpg", bytes(2_500_000))) for i in range(3)]
    )
    cases = {
        "pixels": (said(photo=file(server.upload(client, wide))), "2,000,000"),
        "names": (said(words=", ".join(map(str, range(60)))), "at most 50"),
        "length of a name": (said(words="x" * 41), "at most 40"),
        "a path as model": (said(model="../checkpoints/ovseg-mini/adapted.safetensors"), _NO_CHOICE),
        "a path as proposer": (said(proposer="/etc/passwd"), _NO_CHOICE),
        "no photo": (said(photo=None), ""),
        "no such endpoint": (server.call(client, "nothing", photo=path), ""),
        "size of a request": (Answer(False, _json(too_long), too_long.status_code), "more than is taken"),
        "size of an upload": (Answer(False, too_large.text, too_large.status_code), ""),
        "size of uploads together": (
            Answer(False, _json(too_many), too_many.status_code),
            "more than is taken",
        ),
    }
    wrong = [
        f"{name}: {answer.status} {answer.sentence}"
        for name, (answer, words) in cases.items()
        if answer.ok
        or words not in answer.sentence
        or not (is_sentence(answer.sentence) or words == _NO_CHOICE)
    ]
    yield Figure.none_of(len(cases), "limits and choices the API does not hold", wrong)
    yield Figure.none_of(
        1, "ordinary requests refused after that", [] if said().ok else ["an ordinary photo"]
    )
    past = client.post(f"{API}/run/segment", json={"data": [path, "cup"], "fn_index": 0})
    yield Figure("past the queue", str(past.status_code), "404", past.status_code == 404)


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except json.JSONDecodeError:
        return reply.text


# --- reading what is private ------------------------------------------------------------------------------


def _reading(server: Server, client: httpx.Client) -> Iterator[Figure]:
    private = {
        "/etc/passwd": b"root:", "/proc/self/environ": b"OVSEG_SECRET_FOR_PROBES",
        str(ROOT / "app.py"): b"from ovseg_demo", str(ROOT / "ovseg_demo/settings.py"): b"class Settings",
        str(ROOT / "checkpoints/ovseg-mini/config.json"): b"architecture",
        str(ROOT / "checkpoints/ovseg-mini/adapted.safetensors"): b"visual.", str(server.log): b"Running on",
    }  # fmt: skip
    leaks, tried = [], 0
    host, port = server.url.removeprefix("http://").split(":")
    for path, holds in private.items():
        for route in _FILE_ROUTES:
            for trick in _READ_AS:
                tried += 1
                # By hand, since clients tidy addresses up before they send them.
                answer = _raw(host, int(port), route + trick.format(path))
                if holds in answer:
                    leaks.append(route + trick.format(path))
    for path, holds in private.items():
        for argument in (file(path), {"path": path}, {**file(path), "url": f"{server.url}{API}/file={path}"}):
            tried += 1
            answer = server.call(client, "segment", photo=argument, words="cup")
            if answer.ok or holds.decode("latin-1") in json.dumps(answer.data):
                leaks.append(f"argument {argument}")
    front = client.get("/").text + client.get("/config").text + client.get(f"{API}/info").text
    leaks += [f"{what} on the page" for what in (str(ROOT), "the-environment-is-private") if what in front]
    yield Figure.none_of(tried, "probes that read what is private", leaks)
    closed = (
        "/monitoring", "/docs", "/openapi.json", "/login", f"{API}/process_recording",
        f"{API}/component_server", f"{API}/vibe-edit", f"{API}/deep_link?session_hash=x", f"{API}/runs",
        f"{API}/stream/x",
    )  # fmt: skip
    opened = [
        path for path in closed if client.get(path).status_code != 404 or client.post(path).status_code != 404
    ]
    yield Figure.none_of(len(closed) * 2, "unused addresses of Gradio that answer", opened)
    remote = client.get("/counters", headers={"X-Forwarded-For": "203.0.113.9"}).status_code
    yield Figure("counters for somebody else", str(remote), "403", remote == 403)


def _raw(host: str, port: int, path: str) -> bytes:
    with socket.create_connection((host, port), timeout=60) as connection:
        line = path.replace(" ", "%20").encode("latin-1", "replace")
        connection.sendall(b"GET " + line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


# --- making the server fetch --------------------------------------------------------------------------------


@contextmanager
def _listener() -> Iterator[tuple[str, list[str]]]:
    """An address on loopback, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()


def _fetching(server: Server, client: httpx.Client) -> Iterator[Figure]:
    with _listener() as (address, asked):
        target = f"{address}/secret.jpg"
        attempts: list[Any] = [
            server.call(client, "segment", photo={**file(target)}, words="cup"),
            server.call(client, "segment", photo=target, words="cup"),
            server.call(client, "segment", photo={**file("x"), "url": target}, words="cup"),
            server.call(client, "segment", photo=file(target.replace("http", "HTTP")), words="cup"),
            server.call(client, "segment", photo=None, words=file(target)),
            client.get(f"{API}/file={target}"),
            client.get(f"{API}/proxy={target}"),
            client.post(
                f"{API}/queue/join", json={"fn_index": 0, "session_hash": "x", "data": [file(target)]}
            ),
        ]
        time.sleep(2)
    taken = [str(a) for a in attempts if isinstance(a, Answer) and a.ok]
    yield Figure.none_of(len(attempts), "requests that make the server fetch", asked + taken)


# --- what leaves and what stays -----------------------------------------------------------------------------


def _exports(server: Server, client: httpx.Client) -> Iterator[Figure]:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "SECRET-DESCRIPTION", "SECRET-AUTHOR"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 13.0)
    with Image.open(hostile.EXAMPLES / "coffee.jpg") as opened:
        photo = hostile.saved(opened.convert("RGB").resize((300, 200)), "JPEG", exif=exif)
    assert b"SECRET-AUTHOR" in photo
    answer = server.call(client, "compare", photo=file(server.upload(client, photo)), words="cup, table")
    files = (
        [client.get(f"{API}/file={item['path']}").content for item in answer.data[1:]] if answer.ok else []
    )
    leaks = [str(len(content)) for content in files if b"SECRET" in content or b"Exif" in content]
    yield Figure.none_of(len(files), "exports that hold EXIF or GPS", leaks)


def _gone(server: Server, client: httpx.Client) -> Iterator[Figure]:
    """Also what a cut connection leaves: half an upload."""
    mine = server.upload(client, (hostile.EXAMPLES / "cow.jpg").read_bytes(), f"{SECRET_FILE}.jpg")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {API}/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        part = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{SECRET_FILE}.jpg"\r\n\r\n'
        head += f"Content-Length: 1000000\r\n\r\n{part}"
        connection.sendall(head.encode() + bytes(300_000))
        time.sleep(1)
    before = len(_stored(server))
    deadline = time.monotonic() + 120
    while (left := _stored(server)) and time.monotonic() < deadline:
        time.sleep(1)
    yield Figure(
        "uploads and results after their 20 s",
        f"{len(left)} of {before}",
        "0 of some",
        before > 1 and not left,
    )
    again = client.get(f"{API}/file={mine}").status_code
    yield Figure("a deleted upload, asked for", str(again), "403 or 404", again in (403, 404))


def _stored(server: Server) -> list[Path]:
    """Visitors' files; the examples are not."""
    ours = {path.name for path in hostile.EXAMPLES.rglob("*")}
    found = (server.folder / "tmp").glob("ovseg-demo-*/files/**/*")
    return [path for path in found if path.is_file() and path.name not in ours]


def _log(server: Server) -> Iterator[Figure]:
    text = server.log.read_text(encoding="utf-8", errors="replace")
    personal = [word for word in (SECRET_WORD, SECRET_FILE, "cup", "SECRET") if word in text]
    yield Figure.none_of(text.count("\n"), "lines of the log with something personal", personal)
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    whole = [
        e for e in events if e["event"] == "request" and {"request", "kind", "outcome", "seconds"} <= e.keys()
    ]
    yield Figure("requests in the log, each with its id", f"{len(whole)}", "> 5", len(whole) > 5)
    failed = [json.dumps(e) for e in events if e.get("outcome") == "failed"]
    yield Figure.none_of(len(whole), "requests that failed for no reason of the visitor's", failed)
