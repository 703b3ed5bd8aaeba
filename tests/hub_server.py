"""A server in place of the model hub on loopback, with the ways a download can fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from ovseg_demo.models import ModelEntry
from ovseg_demo.models.hub import HubFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"

PLACES = {"models": "", "spaces": "spaces/"}
"""What stands in front of a repository's address, by its kind."""

BODY = bytes(range(256)) * 4096  # a megabyte
SHA256 = hashlib.sha256(BODY).hexdigest()
ADDRESS = f"owner/tiny/resolve/{COMMIT}/weights.bin"

PINNED = HubFile("owner/tiny", "weights.bin", len(BODY), COMMIT, SHA256)


def table(source: HubFile) -> dict[str, ModelEntry]:
    """A table of one model, both arms of which are `source`."""
    return {"tiny": ModelEntry("tiny", "clip", "Tiny", "MIT", {"vanilla": source, "adapted": source})}


@dataclass
class HubServer:
    """Files by address, and what to do wrong with them.

    A file's address is that of the hub: `owner/name/resolve/revision/path`, spaces with `spaces/` in front.
    What is uploaded to a repository lies at its address on `main` afterwards.
    """

    endpoint: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts_left: int = 0
    """How many more answers end after half of what they should hold."""

    status: int = 200
    """Anything else is what every request gets."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, address, Range header) of each request."""

    authorizations: list[str] = field(default_factory=list)
    """The Authorization header of each request."""

    slowness_s: float = 0.0
    """Pause before each body, so that two clients meet."""

    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was asked for when a repository was made, by name."""

    token: str = ""
    """Uploads with another token are refused; any will do if it is empty."""

    large: dict[str, bytes] = field(default_factory=dict)
    """Large files that were sent, by sha256, until a commit gives them a name."""

    def put(self, address: str, body: bytes) -> str:
        """Serve `body` at `address`; returns its sha256."""
        self.files[address] = body
        return hashlib.sha256(body).hexdigest()

    def downloads(self) -> list[str]:
        """The Range headers of the requests for files, empty where there was none."""
        # The client also asks for lists of its own, at other addresses.
        return [asked for method, path, asked in self.requests if method == "GET" and "/resolve/" in path]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub on a free port of loopback, until the block ends."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            path = unquote(self.path).split("?")[0].strip("/")
            if match := re.fullmatch(r"api/(models|spaces)/([^/]+/[^/]+)/tree/main", path):
                start = f"{PLACES[match[1]]}{match[2]}/resolve/main/"
                held = {key: body for key, body in hub.files.items() if key.startswith(start)}
                self._say(
                    [
                        {"type": "file", "path": key.removeprefix(start), "oid": "0", "size": len(body)}
                        for key, body in held.items()
                    ]
                )
                return
            self._answer(with_body=True)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.requests.append(("POST", self.path, ""))
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._refuse(401)
                return
            path = unquote(self.path).split("?")[0].strip("/")
            if hub.status != 200:
                self._refuse(hub.status)
            elif path == "api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                name = PLACES[f"{asked.get('type') or 'model'}s"] + name
                hub.repositories[name] = asked
                self._say({"url": f"{hub.endpoint}/{name}"})
            elif path == "api/validate-yaml":
                self._say({"errors": [], "warnings": []})
            elif match := re.fullmatch(r"api/(models|spaces)/([^/]+/[^/]+)/preupload/main", path):
                asked = json.loads(body)["files"]
                modes = {True: "lfs", False: "regular"}
                self._say(
                    {
                        "files": [
                            {
                                "path": one["path"],
                                "uploadMode": modes[one["path"].endswith(".safetensors")],
                                "shouldIgnore": False,
                            }
                            for one in asked
                        ]
                    }
                )
            elif match := re.fullmatch(r"((?:spaces/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.endpoint}/large/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                self._say({"transfer": "basic", "objects": objects})
            elif match := re.fullmatch(r"api/(models|spaces)/([^/]+/[^/]+)/commit/main", path):
                lines = [json.loads(line) for line in body.splitlines()]
                self._commit(PLACES[match[1]] + match[2], lines)
            else:
                self._refuse(404)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            digest = hashlib.sha256(body).hexdigest()
            hub.requests.append(("PUT", self.path, ""))
            if self.path != f"/large/{digest}":
                self._refuse(400)
                return
            hub.large[digest] = body
            self._say({})

        def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.put(f"{name}/resolve/main/{value['path']}", base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    hub.put(f"{name}/resolve/main/{value['path']}", hub.large[value["oid"]])
                elif line["key"] == "deletedFile":
                    del hub.files[f"{name}/resolve/main/{value['path']}"]
            self._say({"commitUrl": f"{hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

        def _say(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, *, with_body: bool) -> None:
            asked = self.headers.get("Range", "")
            hub.requests.append((self.command, self.path, asked))
            hub.authorizations.append(self.headers.get("Authorization", ""))
            body = hub.files.get(unquote(self.path).lstrip("/"))
            if hub.status != 200 or body is None:
                self._refuse(hub.status if hub.status != 200 else 404)
                return
            start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", asked)) else 0
            part = body[start:]
            digest = hashlib.sha256(body).hexdigest()
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(part)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self._send(part)

        def _send(self, part: bytes) -> None:
            threading.Event().wait(hub.slowness_s)
            if hub.cuts_left > 0:
                hub.cuts_left -= 1
                self.wfile.write(part[: len(part) // 2])
                self.close_connection = True
            else:
                # Whoever asked may be gone: that is what some tests are about.
                with suppress(ConnectionError):
                    self.wfile.write(part)

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
