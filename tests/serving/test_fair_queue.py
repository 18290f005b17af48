"""Whose turn is next."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from dynemo.serving.fair_queue import Entry, FairQueue


class Queue(FairQueue[str]):
    """A queue whose entries have a name and arrive in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals = count(1)

    def add(self, client: str, name: str = "", priority: int = 0) -> Entry[str]:
        entry = Entry(priority, next(self.arrivals), name or client)
        self.push(client, entry)
        return entry

    def take(self) -> str:
        return self.pop()[1].item

    @property
    def is_forgetful(self) -> bool:
        """Whether nothing is left of clients that have gone."""
        return not self._clients and not self._order and not len(self) and not self.running


def test_one_client_is_served_in_order_of_arrival() -> None:
    queue = Queue()
    for name in "abc":
        queue.add("one", name)
    assert [queue.take() for _ in range(3)] == ["a", "b", "c"]


def test_the_client_with_the_fewest_sequences_is_next() -> None:
    queue = Queue()
    for _ in range(3):
        queue.started("greedy")
    queue.started("other")
    for client in ("greedy", "greedy", "other", "polite"):
        queue.add(client)
    # `polite` has none, and then one as `other` has; both get a second one before `greedy`.
    assert [queue.take() for _ in range(3)] == ["polite", "other", "greedy"]


def test_with_one_slot_the_time_that_a_client_used_decides() -> None:
    queue = Queue()
    used = {"long": 0.0, "short": 0.0}
    for client in used:
        queue.add(client)
    for _ in range(100):
        client = queue.take()
        seconds = 20.0 if client == "long" else 1.0
        used[client] += seconds
        queue.add(client)
        queue.ended(client, seconds)
    assert abs(used["long"] - used["short"]) <= 20.0


def test_a_client_that_comes_late_starts_level() -> None:
    queue = Queue()
    queue.started("old")
    queue.ended("old", 1000.0)
    queue.add("old")
    queue.add("old")
    assert queue.take() == "old"
    queue.add("new")
    turns: list[str] = []
    for _ in range(10):
        queue.ended("old" if not turns else turns[-1], 1.0)
        turns.append(queue.take())
        queue.add(turns[-1])
    assert 4 <= turns.count("new") <= 6


def test_a_client_that_comes_back_gets_no_credit() -> None:
    queue = Queue()
    for _ in range(50):  # it leaves after each sequence, and nothing is kept of it
        queue.started("short")
        queue.ended("short", 0.001)
    assert queue.is_forgetful
    queue.started("long")
    queue.add("short")
    queue.add("long")
    queue.ended("long", 5.0)
    assert queue.take() == "short"


def test_priority_orders_within_a_client() -> None:
    queue = Queue()
    queue.add("one", "late", priority=5)
    queue.add("one", "first")
    queue.add("one", "second")
    queue.add("one", "urgent", priority=-1000)
    assert [queue.take() for _ in range(4)] == ["urgent", "first", "second", "late"]


def test_priority_moves_no_client_before_another() -> None:
    queue = Queue()
    queue.started("pushy")
    queue.add("pushy", priority=-1000)
    queue.add("modest", priority=1000)
    assert queue.take() == "modest"


def test_what_has_left_is_not_served() -> None:
    queue = Queue()
    queue.add("one", "a")
    gone = queue.add("one", "b")
    queue.add("one", "c")
    queue.discard("one", gone)
    queue.discard("one", gone)
    assert len(queue) == 2
    assert [queue.take() for _ in range(2)] == ["a", "c"]


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "end", "leave"]), st.integers(0, 4))))
def test_any_sequence_of_calls_adds_up(calls: list[tuple[str, int]]) -> None:
    queue = Queue()
    waiting: list[tuple[str, Entry[str]]] = []
    running: list[str] = []
    for call, number in calls:
        client = f"c{number}"
        if call == "push":
            waiting.append((client, queue.add(client, priority=number % 2)))
        elif call == "pop" and waiting:
            taken, entry = queue.pop()
            waiting.remove((taken, entry))
            others = [one for one, _ in waiting]
            assert all(running.count(taken) <= running.count(one) for one in others)
            running.append(taken)
        elif call == "end" and running:
            queue.ended(running.pop(number % len(running)), number / 10)
        elif call == "leave" and waiting:
            queue.discard(*waiting.pop(number % len(waiting)))
        assert (len(queue), queue.running) == (len(waiting), len(running))
        assert {one for one in ("c0", "c1", "c2", "c3", "c4") if queue.has(one)} == {
            one for one, _ in waiting
        }
    for client, entry in waiting:
        queue.discard(client, entry)
    for client in running:
        queue.ended(client, 1.0)
    assert queue.is_forgetful
