"""Part 4: many clients at once, some of whom leave midway; and a server that is killed in the middle."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.robustness.hostile_files import EXAMPLES
from tests.robustness.plan import Plan
from tests.robustness.server import Answer, Server, file, running_server
from tests.robustness.table import Figure

__all__ = ["figures"]

PHOTOS = ("coffee.jpg", "cow.jpg", "fig.jpg", "raccoon.jpg", "room.jpg")
WORDS = ("cup, table, zebra", "cow | bull, grass", "dog, cat, sky, wood")
SLOPE_LIMIT_MB_PER_MIN = 20.0
GROWTH_NEEDS_S = 120.0
"""A run that is shorter tells nothing about growth after the first minute."""


@dataclass
class Tally:
    """What the clients saw, together."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, MB)"""


def figures(plan: Plan) -> list[Figure]:
    """Run the part."""
    with tempfile.TemporaryDirectory() as name:
        # As many visitors are remembered as are there, so that what is kept for them is full within the
        # minute after which memory may not grow.
        settings = {
            "max_side_px": 256,
            "max_queue": max(4, plan.clients // 2),
            "max_visitors": plan.clients,
        }
        with running_server(Path(name) / "home", **settings) as server:
            photos, words = (PHOTOS, WORDS) if plan.thorough else (PHOTOS[:2], WORDS[:2])
            alone = _alone(server, photos, words)
            tally = _together(server, plan, alone)
            found = [
                *_of_load(server, plan, tally),
                *_of_queue(server, photos, more=6 if plan.thorough else 2),
                *_of_kill(server, photos, alone),
            ]
    return found


Key = tuple[str, str]


def _facts(answer: Answer) -> str:
    """Everything of a result that must not depend on who else was there."""
    return json.dumps({k: v for k, v in answer.data[0].items() if k != "timings"}, sort_keys=True)


def _alone(server: Server, photos: tuple[str, ...], lists: tuple[str, ...]) -> dict[Key, str]:
    """Each request, one after the other, with nobody else there."""
    found: dict[Key, str] = {}
    with server.client() as client:
        for photo in photos:
            for words in lists:
                answer = server.segment(client, (EXAMPLES / photo).read_bytes(), words)
                assert answer.ok, f"alone: {answer.sentence}"
                found[photo, words] = _facts(answer)
    return found


def _together(server: Server, plan: Plan, alone: dict[Key, str]) -> Tally:
    tally, lock, keys = Tally(), threading.Lock(), list(alone)
    started = time.monotonic()
    until = started + plan.load_s

    def one(number: int) -> None:
        chance = random.Random(number)
        with server.client() as client:
            while time.monotonic() < until:
                key = chance.choice(keys)
                outcome, remark = _one_request(server, client, key, alone, leaves=chance.random() < 1 / 3)
                with lock:
                    tally.outcomes[outcome] += 1
                    if remark:
                        tally.wrong.append(f"client {number}, {key}: {remark}")
                if outcome == "busy":
                    time.sleep(chance.random() * 2)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(plan.clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tally.memory.append((time.monotonic() - started, server.memory_mb))
        time.sleep(1.0)
    return tally


def _one_request(
    server: Server, client: httpx.Client, key: Key, alone: dict[Key, str], *, leaves: bool
) -> tuple[str, str]:
    """What became of it, and what was wrong with that."""
    photo, words = key
    try:
        path = server.upload(client, (EXAMPLES / photo).read_bytes())
        asked = server.ask(client, "segment", photo=file(path), words=words)
        if isinstance(asked, Answer):
            fine = asked.status == 503 and "busy" in asked.sentence
            return "busy", "" if fine else f"{asked.status} {asked.sentence}"
        if leaves:
            _leave(server, asked)
            return "left", ""
        answer = server.read(client, "segment", asked)
    except httpx.HTTPError as error:
        return "broken", type(error).__name__
    if not answer.ok:
        return "refused", answer.sentence
    return "good", "" if _facts(answer) == alone[key] else "another result than alone"


def _leave(server: Server, event: str) -> None:
    """Begin to listen and leave without reading the answer."""
    try:
        with (
            server.client(timeout_s=1.0) as other,
            other.stream("GET", f"/gradio_api/call/segment/{event}") as stream,
        ):
            next(stream.iter_lines())
    except (httpx.HTTPError, StopIteration):
        pass


def _of_load(server: Server, plan: Plan, tally: Tally) -> list[Figure]:
    idle_s = _until_idle(server)
    counted = tally.outcomes
    mix = ", ".join(f"{number} {name}" for name, number in sorted(counted.items()))
    done = counted["good"]
    figures = [
        Figure(f"{plan.clients} clients for {plan.load_s:.0f} s", mix, "> 0 good", done > 0),
        Figure.none_of(sum(counted.values()), "wrong results, cross-talk, unkind answers", tally.wrong),
        Figure.at_most("work that goes on after all have left", idle_s, 60.0, "s"),
        Figure("the server", "alive" if server.alive else "dead", "alive", server.alive),
    ]
    if plan.load_s < GROWTH_NEEDS_S:
        return [*figures, Figure.skipped("growth of memory after the first minute", "the run is too short")]
    late = np.array([point for point in tally.memory if point[0] > 60])
    slope = float(np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0])
    span = f"{late[0, 1]:.0f} to {late[-1, 1]:.0f} MB"
    return [
        *figures,
        Figure(
            "growth of memory after the first minute", f"{slope:+.1f} MB/min ({span})",
            f"<= {SLOPE_LIMIT_MB_PER_MIN:.0f} MB/min", slope <= SLOPE_LIMIT_MB_PER_MIN,
        ),
    ]  # fmt: skip


def _until_idle(server: Server) -> float:
    started = time.monotonic()
    while time.monotonic() - started < 300:
        counters = server.counters()
        if counters["ovseg_requests_running"] == 0 and counters["ovseg_queue_length"] == 0:
            break
        time.sleep(0.25)
    return time.monotonic() - started


def _of_queue(server: Server, photos: tuple[str, ...], more: int) -> list[Figure]:
    """More requests than the line is long, at once; then an ordinary one, to see that the line moves on."""
    events: list[Any] = []
    with server.client() as client:
        path = server.upload(client, (EXAMPLES / photos[0]).read_bytes())
        limit = int(json.loads((server.folder / "settings.json").read_text())["max_queue"])
        for number in range(limit + more):
            events.append(server.ask(client, "segment", photo=file(path), words=f"word {number}"))
        refused = [e for e in events if isinstance(e, Answer)]
        kind = [e for e in refused if e.status == 503 and "busy" in e.sentence]
        for event in events:
            if not isinstance(event, Answer):
                _leave(server, event)
        after = server.segment(client, (EXAMPLES / photos[0]).read_bytes(), "cup")
    return [
        Figure(
            f"a queue of {limit}: {limit + more} at once",
            f"{len(refused)} told that it is busy",
            "some, each with a sentence",
            bool(refused) and len(kind) == len(refused),
        ),
        Figure("a request after the rush", "good" if after.ok else after.sentence, "good", after.ok),
    ]


def _of_kill(server: Server, photos: tuple[str, ...], alone: dict[Key, str]) -> list[Figure]:
    """Killed while it works, started again: the caches are valid, and nothing is left lying about."""
    key = (photos[0], WORDS[0])
    with server.client() as client:
        path = server.upload(client, (EXAMPLES / photos[-1]).read_bytes())
        server.ask(client, "segment", photo=file(path), words="other, words")
        time.sleep(0.5)
    server.restart()
    with server.client() as client:
        answer = server.segment(client, (EXAMPLES / photos[0]).read_bytes(), key[1])
    same = answer.ok and _facts(answer) == alone[key]
    folders = len(list((server.folder / "tmp").glob("ovseg-demo-*")))
    return [
        Figure(
            "killed and started again: same result", "yes" if same else answer.sentence or "no", "yes", same
        ),
        Figure("folders of uploads after that", str(folders), "1", folders == 1),
    ]
