"""Work in threads: in order, and only so far ahead."""

import time

import pytest

from driverwatch.data.threads import in_threads


def test_in_order_and_a_bounded_number_ahead() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    found = []
    for result in in_threads(work, range(100), ahead=10):
        found.append(result)
        assert max(begun) <= len(found) + 10
    assert found == [n * n for n in range(100)]
    assert list(in_threads(work, [])) == []


def test_a_failure_comes_where_its_item_was() -> None:
    results = in_threads(lambda item: 1 // item, [2, 1, 0, 1], ahead=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
