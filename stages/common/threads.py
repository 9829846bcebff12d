"""Map functions on threads, and share things among them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
TAKEN = 4  # results of an item that a thread computes at a time


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


def stream_in_threads(
    function: Callable[[A], Iterator[B]], items: Iterable[A], workers: int | None = None
) -> Iterator[B]:
    """Yield all results of a function that yields several for an item, in the order of the items.

    A thread computes at most TAKEN results of an item before they are read, so memory grows neither with the items nor
    with the results of one. Only the first results of an item are computed beside those of other items.

    Args:
        workers: number of threads; None uses one for each core.
    """
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:

        def start(results: Iterator[B]) -> tuple[Iterator[B], Future[list[B]]]:
            return results, pool.submit(lambda: list(islice(results, TAKEN)))

        remaining = map(function, items)
        waiting = deque(map(start, islice(remaining, 2 * workers)))
        while waiting:
            results, future = waiting.popleft()
            taken = future.result()
            if len(taken) == TAKEN:
                waiting.appendleft(start(results))
            yield from taken
            if len(taken) < TAKEN:
                waiting.extend(map(start, islice(remaining, 1)))


@contextmanager
def borrow(free: SimpleQueue[A]) -> Iterator[A]:
    """Yield one of the things in a queue, once it is free. No other thread gets it in the block."""
    thing = free.get()
    try:
        yield thing
    finally:
        free.put(thing)
