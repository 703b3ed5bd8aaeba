"""Request tracking: an id and a time limit for every request, counters, a log without anything personal.

What visitors type and what their files are called never reaches the log: of an error it holds the class and
the places in the code, not the message, which may quote the words. Messages about the machine, such as
weights that are missing, are written in full; visitors get a shorter one.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ovseg_demo import __version__
from ovseg_demo.errors import OvsegError, ResourceError
from ovseg_demo.settings import Settings

__all__ = [
    "JsonLines",
    "RequestCancelledError",
    "RequestContext",
    "RequestTracker",
    "log_as_json_lines",
]

_log = logging.getLogger("ovseg_demo")

_STUCK_AFTER = 2
"""A request that runs for this many times its limit counts as stuck."""


class RequestCancelledError(Exception):
    """The client has left: the work ends and nothing is reported."""


@dataclass
class RequestContext:
    """One request under way."""

    kind: str
    """Which endpoint or button."""
    timeout_s: float
    wanted: Callable[[], bool] = lambda: True
    """Whether a client still waits for the answer."""
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    started: float = field(default_factory=time.monotonic)
    outcome: str = "done"
    error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.monotonic() - self.started

    def check(self) -> None:
        """To be called between two pieces of work.

        Raises:
            ResourceError: the request is over its time limit.
            RequestCancelledError: the client has left.
        """
        if not self.wanted():
            raise RequestCancelledError
        if self.seconds > self.timeout_s:
            self.outcome = "timeout"
            raise ResourceError(
                f"This took more than {self.timeout_s:.0f} seconds and was stopped; "
                "try a smaller photo, fewer words or a smaller model."
            )

    def error_message(self, error: BaseException) -> str:
        """The sentence for the client, with the id of the request; notes the outcome."""
        self.error = error
        if isinstance(error, RequestCancelledError):
            self.outcome = "stopped"
            return "Stopped."
        if not isinstance(error, OvsegError) and _is_out_of_memory(error):
            self.outcome = "refused"
            return (
                "There is not enough memory for this just now; try a smaller photo or fewer words. "
                f"(request {self.id})"
            )
        if isinstance(error, OvsegError):
            self.outcome = "refused" if self.outcome == "done" else self.outcome
            return f"{error.public} (request {self.id})"
        self.outcome = "failed"
        return f"Something went wrong here; please try again. (request {self.id})"


class RequestTracker:
    """Counts and times what the server does.

    Args:
        settings: limits.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, float] = {}
        self._running: dict[str, RequestContext] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._began = time.monotonic()

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Add a number to the counters page that is read when the page is."""
        self._gauges[name] = read

    def count(self, kind: str, outcome: str) -> None:
        """Count something that is over at once, such as a request that the middleware refuses."""
        with self._lock:
            self._counts[kind, outcome] += 1

    @contextmanager
    def request(self, kind: str, wanted: Callable[[], bool] = lambda: True) -> Iterator[RequestContext]:
        """A request from its beginning to its end, however it ends.

        A generator closed inside the block counts as stopped, as does work whose client has left.
        """
        context = RequestContext(kind, self.settings.timeout_s, wanted)
        with self._lock:
            self._running[context.id] = context
        try:
            yield context
        except (GeneratorExit, RequestCancelledError):
            context.outcome = "stopped"
            raise
        except BaseException as error:
            context.error = context.error or error
            context.outcome = "failed" if context.outcome == "done" else context.outcome
            raise
        finally:
            with self._lock:
                del self._running[context.id]
                self._counts[kind, context.outcome] += 1
                self._seconds[kind] = self._seconds.get(kind, 0.0) + context.seconds
            _write(context)

    @property
    def running(self) -> int:
        """How many requests are at work."""
        return len(self._running)

    def health(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and facts for `/healthz`: 503 if a request is stuck, so that a supervisor restarts."""
        with self._lock:
            longest = max((context.seconds for context in self._running.values()), default=0.0)
        stuck = longest > _STUCK_AFTER * self.settings.timeout_s
        facts = {
            "status": "stuck" if stuck else "ok",
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "running": self.running,
        }
        return (503 if stuck else 200), facts

    def counters(self) -> str:
        """The counters page, in the text form that Prometheus reads."""
        with self._lock:
            counts, seconds = sorted(self._counts.items()), sorted(self._seconds.items())
        lines = [
            f'ovseg_requests_total{{kind="{kind}",outcome="{outcome}"}} {number}'
            for (kind, outcome), number in counts
        ]
        lines += [f'ovseg_request_seconds_sum{{kind="{kind}"}} {spent:.3f}' for kind, spent in seconds]
        lines += [f"ovseg_requests_running {self.running}"]
        lines += [f"ovseg_uptime_seconds {time.monotonic() - self._began:.0f}"]
        lines += [f"ovseg_{name} {read():.0f}" for name, read in sorted(self._gauges.items())]
        return "\n".join(lines) + "\n"


def _is_out_of_memory(error: BaseException) -> bool:
    from ovseg_demo.devices import is_out_of_memory  # which imports torch

    return is_out_of_memory(error)


def _write(context: RequestContext) -> None:
    facts: dict[str, Any] = {
        "request": context.id,
        "kind": context.kind,
        "outcome": context.outcome,
        "seconds": round(context.seconds, 3),
    }
    if context.error is not None:
        facts["error"] = type(context.error).__name__
    if isinstance(context.error, OvsegError) and context.error.public != str(context.error):
        facts["detail"] = str(context.error)
    if context.outcome == "failed" and context.error is not None:
        facts["where"] = traceback_locations(context.error)
    level = logging.ERROR if context.outcome == "failed" else logging.INFO
    _log.log(level, "request", extra={"facts": facts})


def traceback_locations(error: BaseException, most: int = 12) -> list[str]:
    """Where in the code an exception came from, innermost last; no values, no messages."""
    frames = traceback.extract_tb(error.__traceback__)[-most:]
    parts = [(frame.filename.replace("\\", "/").split("/"), frame) for frame in frames]
    return [f"{'/'.join(path[-2:])}:{frame.lineno} {frame.name}" for path, frame in parts]


class JsonLines(logging.Formatter):
    """One JSON object a line: when, how bad, what, and the facts given along."""

    def format(self, record: logging.LogRecord) -> str:
        """Leave the arguments of a message out where they could be personal: only `facts` are written."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.msg if isinstance(record.msg, str) else type(record.msg).__name__,
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["where"] = traceback_locations(record.exc_info[1])
        return json.dumps(line)


def log_as_json_lines() -> None:
    """Send the log to stderr, one JSON object a line; for a program that does nothing but serve.

    Gradio prints the errors it meets with all their values, among them what was typed. They go into the log
    instead, as the class of the error and the places in the code.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers = [handler]
    _log.setLevel(logging.INFO)

    def print_nothing(*args: object, **kwargs: object) -> None:
        _log.error("gradio", exc_info=True)

    traceback.print_exc = print_nothing
