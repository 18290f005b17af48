"""The share of one ingress in the slots of a pool."""

from dynemo.messages.records import Load, LoadReport
from dynemo.serving.instance import InstanceState, InstanceStatus
from dynemo.serving.share import own_share
from support.records import make_instance


def status(
    streams: int = 0, own: int = 0, slots: int = 8, state: InstanceState = "ready"
) -> InstanceStatus:
    load = LoadReport(running=streams, streams=streams, own=own)
    return InstanceStatus(make_instance("i", slots=slots), load, state)


def test_alone_it_has_all_slots() -> None:
    assert own_share([status(), status(streams=8, own=8)]) == 16


def test_what_others_use_is_left_out() -> None:
    assert own_share([status(streams=5, own=2), status()]) == 13


def test_it_keeps_half_of_them() -> None:
    assert own_share([status(streams=16), status(streams=9, own=1)]) == 8
    assert own_share([status(streams=2, slots=1)]) == 1


def test_only_ready_instances_count() -> None:
    states: list[InstanceState] = ["draining", "silent", "failing", "unreachable"]
    others = [status(state=state) for state in states]
    assert own_share([status(), *others]) == 8
    assert own_share(others) == 32


def test_a_worker_of_the_release_before_reports_nothing_of_others() -> None:
    instance = make_instance("i", slots=8)
    assert own_share([InstanceStatus(instance, Load(running=8, waiting=4))]) == 8
    assert own_share([]) == 0
