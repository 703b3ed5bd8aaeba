"""A cache is bounded in bytes and in time, for all its users together."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import torch

from ovseg_demo.caching.memory_cache import MemoryCache, size_bytes


@dataclass
class Photo:
    """Something with arrays in it."""

    image: np.ndarray
    features: dict[str, torch.Tensor] = field(default_factory=dict)


def photo(size: int) -> Photo:
    return Photo(np.zeros(size, np.uint8))


def test_arrays_and_tensors_count_once_wherever_they_are() -> None:
    one = photo(100)
    one.features["stem"] = torch.zeros(5, dtype=torch.float32)
    assert size_bytes(one) == 100 + 20
    assert size_bytes((one, [one.image], {"a": np.zeros(3, np.int16)}, "text", 7, None)) == 100 + 20 + 6


def test_the_least_recently_used_makes_room() -> None:
    cache: MemoryCache[Photo] = MemoryCache(250, 60)
    for key in "ab":
        cache.put(key, photo(100))
    assert cache.get("a") is not None
    cache.put("c", photo(100))
    assert (len(cache), cache.kept_bytes) == (2, 200)
    assert cache.get("b") is None and cache.get("a") is not None and cache.get("c") is not None


def test_what_a_value_grows_by_counts_when_it_is_put_again() -> None:
    cache: MemoryCache[Photo] = MemoryCache(250, 60)
    cache.put("a", photo(100))
    grown = photo(100)
    cache.put("b", grown)
    grown.features["stem"] = torch.zeros(100, dtype=torch.uint8)
    cache.put("b", grown)
    assert cache.get("a") is None and cache.get("b") is grown and cache.kept_bytes == 200
    grown.features["more"] = torch.zeros(100, dtype=torch.uint8)
    cache.put("b", grown)
    assert cache.get("b") is None and cache.kept_bytes == 0


def test_a_value_has_its_lifetime() -> None:
    cache: MemoryCache[Photo] = MemoryCache(250, 0.2)
    cache.put("a", photo(100))
    time.sleep(0.3)
    cache.expire()
    assert len(cache) == 0 and cache.kept_bytes == 0


def test_many_threads_share_it() -> None:
    cache: MemoryCache[Photo] = MemoryCache(800, 60)

    def work(start: int) -> None:
        for number in range(start, start + 300):
            cache.put(number % 20, photo(100))
            cache.get(number % 7)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 8 and cache.kept_bytes == 800
