from dynemo.planes.discovery.base import Change, identity_key, instance_key, instances_prefix
from dynemo.planes.discovery.view import View
from dynemo.planes.names import EndpointName


def test_a_listing_yields_the_changes() -> None:
    view = View(10)
    assert view.refresh({"a": b"1", "b": b"1"}, 0) == [Change("a", b"1"), Change("b", b"1")]
    assert view.refresh({"a": b"1", "b": b"2"}, 1) == [Change("b", b"2")]


def test_missing_is_gone_after_the_grace() -> None:
    view = View(10)
    view.refresh({"a": b"1", "b": b"1"}, 0)
    assert view.wait(0) is None
    assert view.refresh({}, 5) == []
    assert view.wait(6) == 9
    assert view.apply([Change("a", b"1")]) == []  # it is registered again, so nothing changes
    assert view.due(14.9) == []
    assert view.due(15) == [Change("b", None)]
    assert view.due(99) == []


def test_a_delete_that_is_seen_ends_the_grace() -> None:
    view = View(10)
    view.refresh({"a": b"1"}, 0)
    view.refresh({}, 1)
    assert view.apply([Change("a", None)]) == [Change("a", None)]
    assert view.wait(1) is None
    assert view.apply([Change("a", None)]) == []


def test_a_second_listing_restarts_the_grace() -> None:
    view = View(10)
    view.refresh({"a": b"1"}, 0)
    view.refresh({}, 1)
    view.refresh({}, 9)
    assert view.due(12) == []
    assert view.refresh({"a": b"1"}, 13) == []
    assert view.wait(13) is None


def test_keys() -> None:
    pool = EndpointName("ns", "pool", "generate")
    assert instance_key(pool, "a/b") == "/dynemo/ns/instances/pool/generate/a%2Fb"
    assert instances_prefix(EndpointName("ns", "", "generate")) == "/dynemo/ns/instances/"
    assert identity_key("ns", "org/m") == "/dynemo/ns/models/org%2Fm/identity"
