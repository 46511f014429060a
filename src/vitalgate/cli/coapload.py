"""The load generator of `vitalgate bench coap`: a process of its own on its own core, with the standard library only.

Requests are made before the clock starts; what is left in the loop is epoll, receive, compare, send. Every request has
a Message ID and a token of its own, every response is held against them, and no socket sends 65,536 requests.
"""

import argparse
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

OUT_OF_PATIENCE = 20
"""Half-seconds without any answer, one after another, after which a server counts as gone."""
CON, NON = 0x40, 0x50
PATH, BLOCK2, BLOCK1 = 11, 23, 27


class NoAnswerError(Exception):
    """The server stopped answering."""


def option_bytes(pairs: list[tuple[int, bytes]]) -> bytes:
    """Options with deltas and lengths below 269, which is all that is sent here (RFC 7252 section 3.1)."""
    out, previous = bytearray(), 0
    for number, value in pairs:
        delta, length, more = number - previous, len(value), bytearray()
        for nibble in (delta, length):
            if nibble > 12:
                more.append(nibble - 13)
        out.append(min(delta, 13) << 4 | min(length, 13))
        out += more + value
        previous = number
    return bytes(out)


def path_options(path: str) -> list[tuple[int, bytes]]:
    """Uri-Path options."""
    return [(PATH, segment.encode()) for segment in path.split("/")]


def requests_of(count: int, tail: bytes, first: int = CON, code: int = 1) -> list[bytes]:
    """``count`` requests with 4-byte tokens, Message IDs one after another from a random start."""
    start = int.from_bytes(os.urandom(2), "big")
    head = bytes((first | 4, code))
    return [
        head + ((start + number) & 0xFFFF).to_bytes(2, "big") + number.to_bytes(4, "big") + tail
        for number in range(count)
    ]


def connected(port: int, count: int) -> list[socket.socket]:
    """Non-blocking sockets, each with a port of its own, to the server on this machine."""
    found = []
    for _ in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        found.append(sock)
    return found


def closed_loop(port: int, work: list[Iterator[bytes]]) -> dict[str, float]:
    """One request under way on each socket until each has sent its ``work``."""
    sockets = connected(port, len(work))
    poller = select.epoll()
    receive, send, following, current = {}, {}, {}, {}
    for sock, requests in zip(sockets, work, strict=True):
        number = sock.fileno()
        poller.register(number, select.EPOLLIN)
        receive[number], send[number], following[number] = sock.recv, sock.send, requests.__next__
    answered = lost = silent = 0
    poll = poller.poll
    started, cpu = time.perf_counter(), time.process_time()
    for number, step in following.items():
        current[number] = request = step()
        send[number](request)
    while current:
        events = poll(0.5)
        if not events:
            silent += 1
            lost += len(current)
            if silent > OUT_OF_PATIENCE:
                raise NoAnswerError
            for number, request in current.items():
                send[number](request)
            continue
        silent = 0
        for number, _ in events:
            response = receive[number](2048)
            if response[2:8] != current[number][2:8]:
                continue  # a late answer to one that was sent again
            answered += 1
            try:
                current[number] = request = following[number]()
            except StopIteration:
                del current[number]
                poller.unregister(number)
                continue
            send[number](request)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    for sock in sockets:
        sock.close()
    return {"count": answered, "seconds": seconds, "lost": lost, "generator_us": cpu / max(1, answered) * 1e6}


def closed(port: int, path: str, sockets: int, requests: int) -> dict[str, float]:
    """GET of ``path`` in a closed loop."""
    tail = option_bytes(path_options(path))
    return closed_loop(port, [iter(requests_of(requests, tail)) for _ in range(sockets)])


def blocks(port: int, path: str, sockets: int, transfers: int) -> dict[str, float]:
    """Whole GETs of 5120 bytes in 80 blocks of 64 (RFC 7959 section 2.4), one after another on each socket."""
    work = []
    for _ in range(sockets):
        plain = iter(requests_of(transfers * 80, b""))
        tails = []
        for number in range(80):
            value = number << 4 | 2
            encoded = value.to_bytes((value.bit_length() + 7) // 8, "big")
            tails.append(option_bytes([*path_options(path), (BLOCK2, encoded)]))
        work.append(iter([next(plain) + tail for _ in range(transfers) for tail in tails]))
    result = closed_loop(port, work)
    result["count"] /= 80
    return result


def flood(port: int, path: str, sockets: int, seconds: float) -> dict[str, float]:
    """Non-confirmable GETs as fast as they can be sent; what counts is the answers that come."""
    tail = option_bytes(path_options(path))
    limit = 65000
    opened = connected(port, sockets)
    ready = [requests_of(int(min(limit, seconds * 400_000 / sockets)), tail, NON) for _ in opened]
    pairs = [(sock.send, sock.recv) for sock in opened]
    answered = sent = 0
    started = time.perf_counter()
    end = started + seconds
    for batch in zip(*ready, strict=True):
        for (send, receive), request in zip(pairs, batch, strict=True):
            try:
                send(request)
                sent += 1
            except BlockingIOError:
                pass
            try:
                while True:
                    receive(2048)
                    answered += 1
            except BlockingIOError:
                pass
        if time.perf_counter() > end:
            break
    elapsed = time.perf_counter() - started
    for sock in opened:
        sock.close()
    return {"count": answered, "seconds": elapsed, "sent": sent}


def fan_out(port: int, path: str, observers: int, updates: int) -> dict[str, float]:
    """``observers`` register with ``path`` (RFC 7641); then a PUT at a time changes it and all of them are awaited."""
    closed_loop(port, [iter([requests_of(1, option_bytes(path_options(path)), CON, 3)[0] + b"\xffvalue"])])
    opened = connected(port, observers + 1)
    writer = opened.pop()
    poller = select.epoll()
    by_number = {sock.fileno(): sock for sock in opened}
    register = requests_of(observers, option_bytes([(6, b""), *path_options(path)]))
    puts = requests_of(updates, option_bytes(path_options(path)), CON, 3)
    poller.register(writer.fileno(), select.EPOLLIN)
    waiting = dict(zip(by_number, register, strict=True))
    silent = 0
    for number, request in waiting.items():
        poller.register(number, select.EPOLLIN)
        by_number[number].send(request)
    while waiting:
        events = poller.poll(0.5)
        silent = 0 if events else silent + 1
        if silent > OUT_OF_PATIENCE:
            raise NoAnswerError
        for number, _ in events:
            if by_number[number].recv(2048)[4:8] == waiting.get(number, b"")[4:8]:
                waiting.pop(number, None)
    received = lost = 0
    started = time.perf_counter()
    for update, put in enumerate(puts):
        content = b"value %09d" % update
        writer.send(put + b"\xff" + content)
        missing = set(by_number)
        while missing:
            events = poller.poll(0.5)
            if not events:
                lost += len(missing)
                if lost > observers * OUT_OF_PATIENCE:
                    raise NoAnswerError
                break
            for number, _ in events:
                sock = by_number.get(number, writer)
                data = sock.recv(2048)
                if sock is writer:
                    continue
                if data[0] & 0x30 == 0:
                    sock.send(b"\x60\x00" + data[2:4])
                if data.endswith(content):
                    missing.discard(number)
                    received += 1
    elapsed = time.perf_counter() - started
    away = option_bytes([(6, b"\x01"), *path_options(path)])
    for sock, request in zip(opened, register, strict=True):
        mid = int.from_bytes(request[2:4], "big") + 32768 & 0xFFFF
        sock.send(request[:2] + mid.to_bytes(2, "big") + request[4:8] + away)  # its token ends the observation
    for sock in (writer, *opened):
        sock.close()
    return {"count": received, "seconds": elapsed, "lost": lost}


def upload(port: int, path: str, size: int) -> dict[str, float]:
    """PUT ``size`` bytes in blocks of 1024 (RFC 7959 section 2.5)."""
    body = bytes(0x20 + number % 64 for number in range(size))
    parts = [body[at : at + 1024] for at in range(0, size, 1024)]
    ready = []
    for number, request in enumerate(requests_of(len(parts), b"", CON, 3)):
        value = number << 4 | (8 if number + 1 < len(parts) else 0) | 6
        block = value.to_bytes((value.bit_length() + 7) // 8, "big")
        ready.append(request + option_bytes([*path_options(path), (BLOCK1, block)]) + b"\xff" + parts[number])
    return closed_loop(port, [iter(ready)])


def main() -> None:
    """Run one measurement and print its figures as JSON; {} where the server stopped answering."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("closed", "blocks", "flood", "fan_out", "upload"))
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--sockets", type=int, default=1)
    parser.add_argument("--amount", type=float, required=True)
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    amount: Any = given.amount if given.kind == "flood" else int(given.amount)
    try:
        if given.kind == "upload":
            result = upload(given.port, given.path, amount)
        else:
            run: Any = {"closed": closed, "blocks": blocks, "flood": flood, "fan_out": fan_out}[given.kind]
            result = run(given.port, given.path, given.sockets, amount)
    except (NoAnswerError, ConnectionRefusedError):
        result = {}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
