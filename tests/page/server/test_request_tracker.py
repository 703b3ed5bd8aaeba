"""Every request has an id, a limit and an entry in the books, and nothing personal is written down."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

import pytest

from ovseg_demo.errors import CheckpointError, DownloadError, ImageError, OutputError, ResourceError
from ovseg_demo.page.server.request_tracker import JsonLines, RequestCancelledError, RequestTracker
from ovseg_demo.settings import Settings

SECRET = "my-holiday.jpg"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(JsonLines().format(record)) for record in caplog.records]


def test_outcomes_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ovseg_demo")
    tracker = RequestTracker(Settings())
    with tracker.request("page"):
        pass
    for error in (ImageError(f"'{SECRET}' is no picture."), ValueError(SECRET), RequestCancelledError()):
        with tracker.request("page") as context:
            told = context.error_message(error)
            assert SECRET not in told or isinstance(error, ImageError)
    with pytest.raises(ZeroDivisionError), tracker.request("page"):
        1 / 0  # noqa: B018
    counters = tracker.counters()
    for outcome, number in {"done": 1, "refused": 1, "failed": 2, "stopped": 1}.items():
        assert f'ovseg_requests_total{{kind="page",outcome="{outcome}"}} {number}\n' in counters
    assert "ovseg_requests_running 0\n" in counters
    written = lines(caplog)
    assert [line["outcome"] for line in written] == ["done", "refused", "failed", "stopped", "failed"]
    assert len({line["request"] for line in written}) == 5
    assert written[-1]["error"] == "ZeroDivisionError"
    assert "test_request_tracker.py" in str(written[-1]["where"])
    assert SECRET not in json.dumps(written)


def test_a_sentence_ends_with_the_id_of_its_request() -> None:
    with RequestTracker(Settings()).request("page") as context:
        assert (
            context.error_message(ImageError("This is no picture."))
            == f"This is no picture. (request {context.id})"
        )
        assert "not enough memory" in context.error_message(MemoryError())
        assert context.error_message(ValueError("private")).startswith("Something went wrong here")


def test_folders_of_the_server_are_for_its_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ovseg_demo")
    tracker = RequestTracker(Settings())
    told = []
    for error in (
        DownloadError(f"It is not here; put it into {Path.home()}/x.", public="It is not here."),
        OutputError(f"{tempfile.gettempdir()}/made.zip cannot be written."),
        CheckpointError("/mnt/weights-of-this-server/adapted.pt is damaged; fetch it again."),
        ImageError(f"'{tempfile.gettempdir()}' is what the photo is called."),
    ):
        with tracker.request("page") as context:
            told.append(context.error_message(error).partition(" (request")[0])
    assert told[0] == "It is not here."
    assert told[1].startswith("This server cannot do that;")
    assert told[2].startswith("This server cannot do that;"), "a folder anywhere on the machine"
    assert told[3].startswith(f"'{tempfile.gettempdir()}'"), "a visitor's own words"
    details = [line.get("detail") for line in lines(caplog)]
    assert details == [
        f"It is not here; put it into {Path.home()}/x.",
        f"{tempfile.gettempdir()}/made.zip cannot be written.",
        "/mnt/weights-of-this-server/adapted.pt is damaged; fetch it again.",
        None,
    ]


def test_time_is_limited() -> None:
    tracker = RequestTracker(Settings(timeout_s=1))
    with tracker.request("page") as context:
        context.check()
        context.started -= 2
        with pytest.raises(ResourceError, match=r"more than 1 seconds") as caught:
            context.check()
        context.error_message(caught.value)
    assert 'outcome="timeout"} 1' in tracker.counters()


def test_work_that_nobody_waits_for_ends() -> None:
    here = [True]
    tracker = RequestTracker(Settings())
    with pytest.raises(RequestCancelledError), tracker.request("page", lambda: here[0]) as context:
        context.check()
        here[0] = False
        context.check()
    assert 'outcome="stopped"} 1' in tracker.counters()


def test_a_stuck_request_is_bad_health() -> None:
    tracker = RequestTracker(Settings(timeout_s=1))
    with tracker.request("page") as context:
        assert tracker.health()[0] == 200
        context.started -= 3
        assert tracker.health() == (503, {**tracker.health()[1], "status": "stuck"})
    assert tracker.health()[1]["running"] == 0


def test_gauges_are_read_when_asked() -> None:
    tracker, values = RequestTracker(Settings()), [1.0]
    tracker.gauge("things", lambda: values[0])
    values[0] = 7
    assert "ovseg_things 7\n" in tracker.counters()


def test_exceptions_are_logged_without_their_words() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "inside", None, (type(error), error, None))
    line = json.loads(JsonLines().format(record))
    assert line["event"] == "inside" and line["error"] == "ValueError" and SECRET not in str(line)
