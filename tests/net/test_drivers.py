"""The asyncio drivers on real sockets, real pseudo-terminals, real TCP."""

import asyncio
import ipaddress
import os
import pty
import socket
import struct
import tty
from collections import deque

import pytest

from vitalgate.counters import Counters
from vitalgate.net import stream, udp
from vitalgate.net.line import LineSettings

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


class EchoEngine:
    """Answers every datagram after ``delay`` seconds (0: at once)."""

    def __init__(self, delay=0.0):
        self.delay, self.out, self.waiting = delay, [], deque()

    def receive_datagram(self, data, path, now):
        if self.delay:
            self.waiting.append((now + self.delay, data, path))
        else:
            self.out.append((data, path))

    def datagrams_to_send(self, now):
        out, self.out = self.out, []
        return out

    def next_timeout(self):
        return self.waiting[0][0] if self.waiting else None

    def handle_timeout(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            _, data, path = self.waiting.popleft()
            self.out.append((data, path))

    def next_event(self):
        return None


async def refused(reader):
    """True when the peer closed without a byte, politely or by a reset."""
    try:
        return await asyncio.wait_for(reader.read(1), 10) == b""
    except ConnectionResetError:
        return True


class Owner:
    def __init__(self):
        self.happened = asyncio.Queue()

    def opened(self, conn):
        self.happened.put_nowait(("opened", conn))

    def data(self, conn, data):
        self.happened.put_nowait(("data", data))

    def closed(self, conn, reason):
        self.happened.put_nowait(("closed", conn))

    async def next(self):
        return await asyncio.wait_for(self.happened.get(), 10)


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_udp_echo_more_than_one_drain(delay):
    async def scenario():
        counters = Counters()
        driver = udp.UdpDriver(EchoEngine(delay), udp.bind("127.0.0.1", 0), counters=counters)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        count = udp.DRAIN * 2 + 5
        for number in range(count):
            client.sendto(b"%d" % number, driver.address)
        got = {await asyncio.wait_for(loop.sock_recv(client, 100), 10) for _ in range(count)}
        assert got == {b"%d" % number for number in range(count)}
        assert counters["net_datagrams_received"] == counters["net_datagrams_sent"] == count
        driver.close()
        client.close()

    asyncio.run(scenario())


def test_udp_send_failure_is_counted_not_raised():
    async def scenario():
        engine, counters = EchoEngine(), Counters()
        driver = udp.UdpDriver(engine, udp.bind("127.0.0.1", 0), counters=counters)
        engine.out.append((bytes(70000), ("127.0.0.1", 9)))
        driver.turn()
        assert counters["net_send_failed{too-long}"] == 1
        driver.close()

    asyncio.run(scenario())


def test_addresses_that_do_not_exist_are_said_in_words():
    with pytest.raises(udp.AddressError, match="port 99999"):
        udp.resolve("127.0.0.1", 99999)
    with pytest.raises(udp.AddressError, match="cannot listen"):
        udp.bind("192.0.2.1", 0)


def test_serial_line_survives_its_adapter(tmp_path):
    async def scenario():
        link, owner, counters = tmp_path / "ttyDEVICE", Owner(), Counters()
        line = stream.SerialLine(str(link), LineSettings(9600), owner, counters)
        assert "ttyDEVICE" in line.error
        for _ in range(2):
            master, slave = pty.openpty()
            tty.setraw(slave)
            link.unlink(missing_ok=True)
            link.symlink_to(os.ttyname(slave))
            assert await owner.next() == ("opened", str(link))
            os.write(master, b"\xffreading")
            assert await owner.next() == ("data", b"\xffreading")
            line.write(b"ask")
            assert os.read(master, 10) == b"ask"
            os.close(slave)
            os.close(master)
            assert await owner.next() == ("closed", str(link))
        assert (counters["net_lines_opened"], counters["net_lines_lost"]) == (2, 2)
        line.close()

    asyncio.run(scenario())


def test_tcp_listener_admits_by_source_and_number():
    async def scenario():
        owner, counters = Owner(), Counters()
        listener = stream.TcpListener(owner, LOOPBACK, maximum=1, counters=counters)
        host, port = await listener.start("127.0.0.1", 0)
        callers = Owner()
        caller = stream.TcpCaller(host, port, callers)
        _, conn = await owner.next()
        await callers.next()
        caller.write(b"hello")
        assert await owner.next() == ("data", b"hello")
        listener.write(conn, b"ack")
        assert await callers.next() == ("data", b"ack")
        reader, writer = await asyncio.open_connection(host, port)
        assert await refused(reader)
        writer.close()
        assert counters["net_connections_refused{too-many}"] == 1
        await caller.close()
        assert (await owner.next())[0] == "closed"
        listener.close()

        closed_to_all = stream.TcpListener(owner, [ipaddress.ip_network("192.0.2.0/24")], counters=counters)
        host, port = await closed_to_all.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(host, port)
        assert await refused(reader)
        writer.close()
        assert counters["net_connections_refused{source-not-allowed}"] == 1
        closed_to_all.close()

    asyncio.run(scenario())


def test_one_device_does_not_keep_the_others_out():
    """A full listener makes room at the address that holds most of it, and else at who has long been silent."""

    async def scenario():
        owner, counters = Owner(), Counters()
        listener = stream.TcpListener(owner, LOOPBACK, maximum=3, counters=counters)
        address = await listener.start("127.0.0.1", 0)

        async def dial(source):
            made = await asyncio.open_connection(*address, local_addr=(source, 0))
            made[1].write(b"x")
            return made

        async def heard():
            return [await owner.next() for _ in range(2)]

        greedy = []
        for _ in range(3):
            greedy.append(await dial("127.0.0.1"))
            await heard()
        greedy[0][1].write(b"y")  # the second is the one longest silent now
        await owner.next()
        for source in ("127.0.0.2", "127.0.0.3"):
            greedy.append(await dial(source))
            kind, gone = await owner.next()
            assert (kind, gone[0]) == ("closed", "127.0.0.1")
            assert (await heard())[0][1][0] == source
        assert await refused(greedy[1][0])
        assert await refused(greedy[2][0])
        again = await dial("127.0.0.1")  # each address has one: nobody's place is free
        assert await refused(again[0])
        assert counters["net_connections_refused{too-many}"] == 1
        assert counters["net_connections_refused{replaced}"] == 2
        for _, writer in (*greedy, again):
            writer.close()
        listener.close()

    asyncio.run(scenario())


def test_a_device_that_lost_its_power_gives_its_place_away(monkeypatch):
    async def scenario():
        owner, counters = Owner(), Counters()
        listener = stream.TcpListener(owner, LOOPBACK, maximum=1, counters=counters)
        address = await listener.start("127.0.0.1", 0)
        _, first = await asyncio.open_connection(*address)
        await owner.next()
        reader, second = await asyncio.open_connection(*address)
        assert await refused(reader)
        second.close()
        monkeypatch.setattr(stream, "SILENT_AFTER", 0.0)
        _, third = await asyncio.open_connection(*address)
        assert [(await owner.next())[0] for _ in range(2)] == ["closed", "opened"]
        first.close()
        third.close()
        listener.close()

    asyncio.run(scenario())


def test_tcp_caller_dials_again():
    async def scenario():
        owner, counters, callers = Owner(), Counters(), Owner()
        listener = stream.TcpListener(owner, LOOPBACK, counters=counters)
        host, port = await listener.start("127.0.0.1", 0)
        caller = stream.TcpCaller(host, port, callers)
        assert (await callers.next())[0] == "opened"
        listener.close()
        assert (await callers.next())[0] == "closed"
        again = stream.TcpListener(owner, LOOPBACK, counters=counters)
        await again.start(host, port)
        assert (await callers.next())[0] == "opened"
        await caller.close()
        again.close()

    asyncio.run(scenario())


def test_tcp_caller_dials_again_whenever_in_the_connection_it_is_reset(monkeypatch):
    """Also where the connection is gone again before asyncio has told of it, as when a gateway is killed."""
    monkeypatch.setattr(stream, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(stream, "LAST_RETRY", 0.001)

    def reset_and_then_accept(server):
        for _ in range(200):
            reset, _ = server.accept()
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.close()
        return server.accept()[0]

    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as server:
            callers = Owner()
            serving = asyncio.create_task(asyncio.to_thread(reset_and_then_accept, server))
            caller = stream.TcpCaller(*server.getsockname(), callers)
            with await serving as accepted:
                accepted.sendall(b"at last")
                while await callers.next() != ("data", b"at last"):
                    pass
            await caller.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_peer_that_does_not_read_is_let_go():
    async def scenario():
        owner, counters = Owner(), Counters()
        listener = stream.TcpListener(owner, LOOPBACK, counters=counters)
        address = await listener.start("127.0.0.1", 0)
        peer = socket.create_connection(address)
        _, conn = await owner.next()
        for _ in range(1000):
            listener.write(conn, bytes(65536))
            if counters["net_connections_refused{peer-does-not-read}"]:
                break
        assert counters["net_connections_refused{peer-does-not-read}"] == 1
        assert (await owner.next())[0] == "closed"
        peer.close()
        listener.close()

    asyncio.run(scenario())
