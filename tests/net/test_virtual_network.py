"""The virtual network: deterministic by its seed, and true to its link models."""

from collections import deque

import pytest

from vitalgate.net.virtual import VirtualNetwork


class Pinger:
    """A small real engine: sends a numbered datagram every second, keeps what arrives."""

    def __init__(self, path=None, count=0):
        self.path, self.left, self.due = path, count, 0.0 if count else None
        self.received, self.out, self.number = [], deque(), 0

    def receive_datagram(self, data, path, now):
        self.received.append((round(now, 6), data, path))

    def datagrams_to_send(self, now):
        out, self.out = list(self.out), deque()
        return out

    def next_timeout(self):
        return self.due

    def handle_timeout(self, now):
        if self.due is None or now < self.due:
            return
        self.out.append((b"%d" % self.number, self.path))
        self.number += 1
        self.left -= 1
        self.due = self.due + 1.0 if self.left else None

    def next_event(self):
        return None


def run(seed, seconds=100, **model):
    network = VirtualNetwork(seed)
    for name, value in model.items():
        setattr(network.default_link, name, value)
    sender, receiver = Pinger(("a", "b"), seconds), Pinger()
    network.add_host("b", receiver)
    network.add_host("a", sender)
    network.run(float(seconds + 10))
    return network, receiver


def test_delay_and_path():
    _, receiver = run(1, seconds=3, delay=0.25)
    assert receiver.received == [(0.25 + n, b"%d" % n, ("b", "a")) for n in range(3)]


def test_same_seed_same_history_other_seed_another():
    one = run(7, loss=0.3, jitter=0.5, duplicate=0.1)[1].received
    assert one == run(7, loss=0.3, jitter=0.5, duplicate=0.1)[1].received
    assert one != run(8, loss=0.3, jitter=0.5, duplicate=0.1)[1].received


def test_loss_and_duplication_happen_about_as_often_as_asked():
    network, receiver = run(3, seconds=1000, loss=0.2, duplicate=0.1)
    assert network.link("a", "b").dropped == pytest.approx(200, abs=45)
    distinct = {data for _, data, _ in receiver.received}
    assert len(receiver.received) - len(distinct) == pytest.approx(80, abs=30)


def test_rate_and_queue_bound():
    network = VirtualNetwork(1)
    link = network.link("a", "b")
    link.delay, link.rate, link.queue = 0.0, 10.0, 0.5
    receiver, sender = Pinger(), Pinger(("a", "b"))
    network.add_host("b", receiver)
    network.add_host("a", sender)
    sender.out.extend([(b"12", ("a", "b"))] * 5)
    network.touch("a")
    network.run(10)
    assert [time for time, *_ in receiver.received] == [0.2, 0.4]
    assert link.dropped == 3


def test_partition_mtu_and_crash():
    network = VirtualNetwork(1)
    receiver, sender = Pinger(), Pinger(("a", "b"))
    network.add_host("b", receiver)
    network.add_host("a", sender)
    network.link("a", "b").mtu = 4
    network.partition("a", "b")
    sender.out.append((b"cut", ("a", "b")))
    network.touch("a")
    network.run(1)
    network.partition("a", "b", up=True)
    sender.out.extend([(b"large", ("a", "b")), (b"fits", ("a", "b"))])
    network.touch("a")
    network.run(2)
    sender.out.append((b"late", ("a", "b")))
    network.touch("a")
    network.remove_host("b")
    network.run(3)
    assert [data for _, data, _ in receiver.received] == [b"fits"]


def test_wall_clock_steps_leave_monotonic_time_alone():
    network = VirtualNetwork(1, wall_start=1000.0)
    wall = network.wall("a")
    network.run(5)
    assert (wall(), network.wall("b")()) == (1005.0, 1005.0)
    network.step_clock("a", -3600)
    assert (wall(), network.now, network.wall("b")()) == (-2595.0, 5.0, 1005.0)


def test_watch_wakes_at_deadlines_until_stopped():
    network = VirtualNetwork(1)
    timer, times = Pinger(None, 100), []
    stop = network.watch(timer, times.append)
    network.run(2.5)
    stop()
    network.run(50)
    assert times == [0.0, 1.0, 2.0]
