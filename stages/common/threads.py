"""Map a function on threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
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
