"""The status server, spoken to with plain HTTP, and the exposition it serves."""

import asyncio

from vitalgate.counters import COUNTERS, Counters
from vitalgate.net.exposition import CONTENT_TYPE, Gauge, exposition
from vitalgate.net.status import MAX_HEAD, StatusServer


def ask(*requests):
    counters = Counters()
    counters.add("net_send_failed", "refused", 3)
    pages = {
        "/metrics": lambda: (200, CONTENT_TYPE, exposition([counters], [Gauge("waiting", "Entries.", 2)])),
        "/ready": lambda: (503, "text/plain", "the cloud does not answer\n"),
    }

    async def scenario():
        server = StatusServer(pages)
        host, port = await server.start("127.0.0.1", 0)
        answers = []
        for request in requests:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(request)
            try:
                answers.append(await asyncio.wait_for(reader.read(), 10))
            except ConnectionResetError:
                answers.append(b"")
            writer.close()
        server.close()
        return answers

    return asyncio.run(scenario())


def test_pages_and_refusals():
    metrics, ready, lost, method, garbage, huge = ask(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ready HTTP/1.1\r\n\r\n",
        b"GET /secret HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET /" + b"a" * (2 * MAX_HEAD) + b" HTTP/1.1\r\n\r\n",
    )
    assert metrics.startswith(b"HTTP/1.1 200 OK")
    assert b'vitalgate_net_send_failed_total{reason="refused"} 3\n' in metrics
    assert b"vitalgate_waiting 2\n" in metrics
    assert b"vitalgate_net_datagrams_sent_total 0\n" in metrics
    assert ready.startswith(b"HTTP/1.1 503")
    assert lost.startswith(b"HTTP/1.1 404")
    assert method.startswith(b"HTTP/1.1 405")
    assert garbage.startswith(b"HTTP/1.1 400")
    assert huge == b""


def test_every_counter_row_is_well_formed():
    for name, row in COUNTERS.items():
        assert name == row.name
        assert name.isidentifier()
        assert name.islower()
        assert row.meaning.endswith(".")
