"""The request filter lets in what the page and the API use, in sizes that are allowed, and nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovseg_demo.page.server.middleware import RequestFilter
from ovseg_demo.page.server.request_tracker import RequestTracker
from ovseg_demo.settings import Settings

SETTINGS = Settings(max_request_bytes=2000, max_batch_bytes=5000, timeout_s=1)


class RecordingApp:
    """The app behind the filter: notes what reaches it and answers with the body's length."""

    def __init__(self, status: int = 200, kind: str = "text/plain") -> None:
        self.status, self.kind = status, kind
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        length, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RuntimeError("the client is gone")
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        if self.status == 0:
            raise KeyError("a bug inside, with /private/values")
        headers = [(b"content-type", self.kind.encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": f'{length} {{"error": null}}'.encode()})


def requested(
    path: str,
    *pieces: bytes,
    inside: RecordingApp | None = None,
    settings: Settings = SETTINGS,
    folder: Path = Path("/srv/files"),
    client: str = "127.0.0.1",
    slow_s: float = 0.0,
    stored: int = 0,
    method: str = "",
    **headers: str,
) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of one request; with pieces of a body it is a POST."""
    sent: list[dict[str, Any]] = []
    waiting = list(pieces)
    tracker = RequestTracker(settings)
    request_filter = RequestFilter(
        inside or RecordingApp(),
        settings=settings,
        tracker=tracker,
        folder=folder,
        stored_bytes=lambda: stored,
        short_calls={"count": lambda body: (200, {"bytes": len(body)})},
    )

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(slow_s)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {
        "type": "http",
        "method": method or ("POST" if pieces else "GET"),
        "path": path,
        "headers": named,
        "client": (client, 5000),
    }
    asyncio.run(request_filter(scope, receive, send))
    told = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode(), told


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg", "/gradio_api/info",
     "/gradio_api/queue/data", "/gradio_api/heartbeat/abc", "/gradio_api/login_check",
     "/gradio_api/call/segment/123"],
)  # fmt: skip
def test_what_the_page_reads_is_let_through(path: str) -> None:
    inside = RecordingApp()
    assert requested(path, inside=inside)[0] == 200 and inside.paths == [path]


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/login", "/monitoring", "/monitoring/summary", "/gradio_api/proxy=http://a",
     "/gradio_api/deep_link", "/gradio_api/component_server", "/gradio_api/vibe-edit", "//", "/etc/passwd",
     "/gradio_api/stream/1/2/3/playlist.m3u8", "/gradio_api/mcp/", "/gradio_api/file/etc/passwd"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [(), (b"{}",)], ids=["GET", "POST"])
def test_everything_else_does_not_exist(path: str, pieces: tuple[bytes, ...]) -> None:
    inside = RecordingApp()
    status, body, _ = requested(path, *pieces, inside=inside)
    assert status == 404 and json.loads(body)["detail"].endswith(".") and inside.paths == []


def test_other_methods_do_not_exist() -> None:
    assert requested("/gradio_api/upload", method="DELETE")[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("a.png", 200), ("../x", 403), ("../files2/x", 403), ("../../etc/passwd", 403), ("x\0y", 403)],
)
def test_files_come_from_one_folder(tmp_path: Path, path: str, status: int) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    assert requested(f"/gradio_api/file={folder}/{path}", folder=folder)[0] == status
    assert requested("/gradio_api/file=http://example.com/x", folder=folder)[0] == 403


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link").symlink_to("/etc/passwd")
    assert requested(f"/gradio_api/file={tmp_path}/files/link", folder=tmp_path / "files")[0] == 403


@pytest.mark.parametrize("headers", [{}, {"content_length": "3000"}], ids=["chunked", "with its length"])
def test_bodies_have_a_size(headers: dict[str, str]) -> None:
    assert requested("/gradio_api/call/segment", b"1" * 1000, b"1" * 900)[0] == 200
    status, body, _ = requested("/gradio_api/call/segment", b"1" * 1500, b"1" * 1500, **headers)
    assert status == 413 and "more than is taken" in body
    assert requested("/gradio_api/upload", b"1" * 3000)[:2] == (200, '3000 {"error": null}')
    status, body, _ = requested("/gradio_api/upload", b"1" * 3000, b"1" * 3000)
    assert status == 413 and "more than is taken" in body


def test_bodies_have_a_time() -> None:
    assert requested("/gradio_api/upload", *[b"1"] * 20, slow_s=0.2)[0] == 408
    assert requested("/gradio_api/run/x", *[b"1"] * 20, slow_s=0.2)[0] == 408


def test_uploads_are_refused_when_the_folder_is_full() -> None:
    full = SETTINGS.max_stored_bytes + 1
    assert requested("/gradio_api/upload", b"1", stored=full)[0] == 507
    assert requested("/gradio_api/call/segment", b"{}", stored=full)[0] == 200


@pytest.mark.parametrize(
    "value",
    [{"path": "http://a/x.jpg"}, [{"photo": {"path": "HTTPS://a"}}], {"a": [[{"path": "ftp://a/b"}]]}],
)
def test_no_request_makes_the_server_fetch_an_address(value: object) -> None:
    status, body, _ = requested("/gradio_api/queue/join", json.dumps({"data": value}).encode())
    assert status == 400 and "upload them" in body


def test_words_that_look_like_an_address_pass() -> None:
    sent = json.dumps({"data": ["http://a", {"path": "/srv/files/x", "url": "http://here/file=x"}]}).encode()
    assert requested("/gradio_api/queue/join", sent)[0] == 200


def test_deeply_nested_json_passes() -> None:
    assert requested("/gradio_api/queue/join", b"[" * 1999)[0] == 200


def test_a_full_queue_is_answered_with_a_sentence() -> None:
    status, body, _ = requested("/gradio_api/queue/join", b"{}", inside=RecordingApp(503))
    assert status == 503 and "busy" in json.loads(body)["detail"]


def test_an_exception_is_answered_with_a_sentence() -> None:
    status, body, _ = requested("/gradio_api/call/v2/x", b"{}", inside=RecordingApp(0))
    assert status == 500 and "private" not in body and json.loads(body)["detail"].endswith("try again.")


def test_empty_errors_get_a_sentence() -> None:
    told = requested(
        "/gradio_api/call/segment/1", inside=RecordingApp(kind="text/event-stream; charset=utf-8")
    )[1]
    assert "could not be understood" in told
    assert "could not" not in requested("/gradio_api/call/segment/1", inside=RecordingApp())[1]


def test_responses_have_security_headers() -> None:
    _, _, headers = requested("/", inside=RecordingApp(kind="text/html; charset=utf-8"))
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'self'")


def test_healthz_is_public() -> None:
    status, body, _ = requested("/healthz", client="203.0.113.9")
    assert status == 200 and json.loads(body)["status"] == "ok"


def test_counters_are_for_the_operator() -> None:
    assert requested("/counters")[0] == 200
    assert requested("/counters", client="203.0.113.9")[0] == 403
    assert requested("/counters", x_forwarded_for="203.0.113.9")[0] == 403
    guarded = replace(SETTINGS, operator_token="a long secret")
    assert requested("/counters", settings=guarded)[0] == 403
    assert requested("/counters", settings=guarded, authorization="Bearer wrong")[0] == 403
    shown = {"authorization": "Bearer a long secret"}
    assert requested("/counters", settings=guarded, client="203.0.113.9", **shown)[0] == 200
    assert "a long secret" not in repr(guarded)


def test_short_calls_are_answered_here_and_limited_as_all_requests_are() -> None:
    inside = RecordingApp()
    json_kind = {"content_type": "application/json; charset=utf-8"}
    status, body, _ = requested("/ovseg/count", b"12", b"345", inside=inside, **json_kind)
    assert status == 200 and json.loads(body) == {"bytes": 5}
    assert requested("/ovseg/count", b"x" * 2001, inside=inside, **json_kind)[0] == 413
    assert requested("/ovseg/count", b"12", b"3", slow_s=1.1, inside=inside, **json_kind)[0] == 408
    # A form of another site is sent without asking; JSON is not.
    assert requested("/ovseg/count", b"12", inside=inside, content_type="text/plain")[0] == 415
    assert requested("/ovseg/other", b"12", inside=inside, **json_kind)[0] == 404
    assert requested("/ovseg/count", inside=inside)[0] == 404
    assert inside.paths == []
