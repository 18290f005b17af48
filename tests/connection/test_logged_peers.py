from dynemo.connection import logged_peers as module
from dynemo.connection.logged_peers import LoggedPeers


def test_a_peer_is_new_once_until_it_is_forgotten() -> None:
    peers = LoggedPeers()
    assert [peers.is_new(peer) for peer in ("a", "b", "a")] == [True, True, False]
    peers.forget("a")
    peers.forget("nobody")
    assert peers.is_new("a")
    assert not peers.is_new("b")


def test_the_number_of_peers_is_bounded() -> None:
    peers = LoggedPeers()
    for number in range(module._MAX_PEERS + 1):
        assert peers.is_new(number)
    assert len(peers._peers) == module._MAX_PEERS
    assert peers.is_new(0)  # the oldest
    assert not peers.is_new(module._MAX_PEERS)
