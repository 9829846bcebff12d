"""Map a function on threads, and share things among them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_in_threads(function: Callable[[A], B], items: Iterable[A], workers: int | None = None) -> Iterator[B]:
    """Yield the function's results in the order of the items.

    At most two results for each worker wait to be read, so that memory does not grow with the number of items.
    Decoding, resampling and NumPy release the interpreter's lock.

    Args:
        workers: number of threads; None uses one for each core.
    """
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(items)
        waiting = deque(pool.submit(function, item) for item in islice(remaining, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))


@contextmanager
def borrow(free: SimpleQueue[A]) -> Iterator[A]:
    """Yield one of the things in a queue, once it is free. No other thread gets it in the block."""
    thing = free.get()
    try:
        yield thing
    finally:
        free.put(thing)
