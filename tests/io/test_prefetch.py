"""Work in threads: in order, and only so far ahead."""

import time
from threading import enumerate as living

import pytest

from driverwatch.io.prefetch import MadeAhead, in_threads


def test_in_order_and_a_bounded_number_ahead() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    found = []
    for result in in_threads(work, range(100), ahead=10):
        found.append(result)
        assert max(started) <= len(found) + 10
    assert found == [n * n for n in range(100)]
    assert list(in_threads(work, [])) == []


def test_a_failure_comes_where_its_item_was() -> None:
    results = in_threads(lambda item: 1 // item, [2, 1, 0, 1], ahead=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


class Slow:
    """Squares that take a while, and how many times each was made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, number: int) -> int:
        self.made.append(number)
        time.sleep(0.001 * (number % 3))
        return number * number


@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_asked_for_in_order_is_made_once_and_ahead(threads: int) -> None:
    slow = Slow()
    ahead = MadeAhead(slow, 50, threads)
    for number in range(50):
        assert ahead(number) == number * number
        assert max(slow.made) <= number + ahead.ahead
    assert sorted(slow.made) == list(range(50))
    with pytest.raises(IndexError):
        ahead(50)


def test_who_looks_at_the_first_two_and_begins_again_finds_them_made() -> None:
    slow = Slow()
    ahead = MadeAhead(slow, 9, 2)
    assert [ahead(0), ahead(1), *map(ahead, range(9))] == [0, 1, *(n * n for n in range(9))]
    assert sorted(slow.made) == list(range(9))
    assert [ahead(number) for number in (0, 7, 3)] == [0, 49, 9]  # again, and in any order


def test_a_failure_is_its_own_numbers_alone() -> None:
    ahead = MadeAhead(lambda number: 1 // (number - 2), 4, 2)
    assert [ahead(0), ahead(1)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        ahead(2)
    assert ahead(3) == 1


def test_closed_it_makes_no_more_ahead_and_leaves_no_thread() -> None:
    slow = Slow()
    others = set(living())  # other tests' threads, which may end meanwhile
    ahead = MadeAhead(slow, 1000, 3)
    assert ahead(0) == 0
    assert set(living()) - others
    ahead.close()
    made = len(slow.made)
    assert not set(living()) - others
    assert made < 20
    assert ahead(5) == 25
    assert len(slow.made) == made + 1
