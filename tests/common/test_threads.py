from collections.abc import Iterator

import pytest

from stages.common.threads import TAKEN, map_in_threads, stream_in_threads


def test_few_results_wait() -> None:
    started, done = 0, 0

    def work(item: int) -> int:
        nonlocal started
        started += 1
        assert started - done <= 2 * 3 + 1
        return item

    for done, item in enumerate(map_in_threads(work, range(50), workers=3), start=1):
        assert item == done - 1
    assert done == 50


@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_in_order(workers: int | None) -> None:
    assert list(map_in_threads(str, range(20), workers)) == [str(item) for item in range(20)]


def test_no_items() -> None:
    assert list(map_in_threads(str, [])) == []


@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_of_an_item_in_order(workers: int | None) -> None:
    counts = [0, 1, TAKEN, TAKEN + 1, 50, 0, 2, 3 * TAKEN] * 3
    expected = [(item, n) for item, count in enumerate(counts) for n in range(count)]

    def work(item: int) -> Iterator[tuple[int, int]]:
        return ((item, n) for n in range(counts[item]))

    assert list(stream_in_threads(work, range(len(counts)), workers)) == expected


def test_few_results_of_an_item_wait() -> None:
    made = 0

    def work(item: int) -> Iterator[int]:
        nonlocal made
        for n in range(100):
            made += 1
            yield 100 * item + n

    for done, _ in enumerate(stream_in_threads(work, range(20), workers=2)):
        assert made - done <= (2 * 2 + 1) * TAKEN + TAKEN
    assert made == 2000


def test_error_of_an_item_comes_after_the_results_before_it() -> None:
    def work(item: int) -> Iterator[float]:
        for n in (2, 1, 0):
            yield item / n

    found = stream_in_threads(work, [1, 2], workers=2)
    with pytest.raises(ZeroDivisionError):
        list(found)
