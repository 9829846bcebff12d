import pytest

from stages.common.threads import map_in_threads


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
