"""Connections to the pages: bounded from the first moment, and given back."""

import contextlib
import socket
import time

import httpx
import pytest

from vitalgate.cloud.web.door import MAX_CONNECTIONS, Door


def connected(site):
    return socket.create_connection((site.server.host, site.server.port), timeout=10)


def is_open(peer):
    """Whether the server kept a connection on which nothing was said."""
    peer.setblocking(False)
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_peers_that_only_connect_take_no_more_than_the_bound(site):
    with contextlib.ExitStack() as held:
        peers = [held.enter_context(connected(site)) for _ in range(MAX_CONNECTIONS + 60)]
        end = time.monotonic() + 8
        while sum(map(is_open, peers)) > MAX_CONNECTIONS:
            assert time.monotonic() < end, "more connections are held than the bound says"
            time.sleep(0.02)
        assert sum(map(is_open, peers)) == MAX_CONNECTIONS
    end = time.monotonic() + 8
    with site.visitor() as visitor:
        while True:  # what was held is given back as soon as its peer leaves
            with contextlib.suppress(httpx.TransportError):
                if visitor.get("/health").status_code == 200:
                    break
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def door():
    listening = Door(socket.AF_INET, total=3, each=2)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    yield listening
    listening.close()


def call(door, source):
    return socket.create_connection(door.getsockname(), timeout=10, source_address=(source, 0))


def test_one_address_leaves_room_for_others(door):
    with call(door, "127.0.0.1"), call(door, "127.0.0.1"), call(door, "127.0.0.1") as third, call(door, "127.0.0.2"):
        kept = [door.accept()[0], door.accept()[0]]
        with pytest.raises(ConnectionAbortedError):
            door.accept()
        assert third.recv(1) == b""
        kept.append(door.accept()[0])
        with call(door, "127.0.0.3"), pytest.raises(ConnectionAbortedError):
            door.accept()
        assert door.turned_away == 2
        kept.pop(0).close()
        with call(door, "127.0.0.3"):
            kept.append(door.accept()[0])
        for one in kept:
            one.close()
            one.close()  # gives its place back once
        with call(door, "127.0.0.1"), call(door, "127.0.0.1"), call(door, "127.0.0.1"):
            for _ in range(2):
                kept.append(door.accept()[0])
            with pytest.raises(ConnectionAbortedError):
                door.accept()
        for one in kept:
            one.close()
