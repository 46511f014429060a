"""`vitalgate coap observe` and the progress of block-wise transfers, against the plugtest server as a process."""

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from vitalgate.cli.coapprogress import progress_text
from vitalgate.coap import TransferProgressed
from vitalgate.net.plugtest import LARGE

VITALGATE = [sys.executable, "-m", "vitalgate", "coap"]


@contextmanager
def serving():
    process = subprocess.Popen(
        [*VITALGATE, "server", "--bind", "127.0.0.1:0", "--interval", "0.1"], stderr=subprocess.PIPE, text=True
    )
    try:
        yield "coap://127.0.0.1:" + re.search(r":(\d+)/", process.stderr.readline())[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def coap(*arguments, data=None):
    return subprocess.run([*VITALGATE, *arguments], capture_output=True, timeout=60, check=False, input=data)


@pytest.mark.e2e
def test_observe_and_progress_from_the_command_line():
    with serving() as uri:
        seen = coap("observe", f"{uri}/obs", "--count", "3")
        assert seen.returncode == 0, seen
        states = seen.stdout.split()
        assert len(states) == 3
        assert len(set(states)) == 3

        seen = coap("observe", f"{uri}/obs-large", "--json", "-n", "2")
        documents = [json.loads(line) for line in seen.stdout.splitlines()]
        assert [document["code"] for document in documents] == ["2.05", "2.05"]
        assert all(len(document["payload"]) > 1024 for document in documents), "whole, though it came in blocks"

        assert coap("observe", f"{uri}/obs", "--seconds", "0.5").returncode == 0
        plain = coap("observe", f"{uri}/validate")
        assert (plain.returncode, b"not let this be observed" in plain.stderr) == (0, True)
        missing = coap("observe", f"{uri}/nothing")
        assert (missing.returncode, b"4.04" in missing.stderr) == (1, True)

        got = coap("get", "-v", f"{uri}/large")
        assert got.returncode == 0
        assert b"received %d of %d bytes" % (len(LARGE), len(LARGE)) in got.stderr
        put = coap("put", "-v", "-d", "-", f"{uri}/large-update", data=bytes(5000))
        assert put.returncode == 0
        assert b"sent 3072 of 5000 bytes" in put.stderr
        assert b"sent" not in coap("put", "-d", "-", f"{uri}/large-update", data=bytes(5000)).stderr


def test_progress_in_words():
    def words(*numbers):
        return progress_text(TransferProgressed(1, None, *numbers))

    assert words(1024, 5000, 0, None) == "sent 1024 of 5000 bytes"
    assert words(0, 0, 64, 300) == "received 64 of 300 bytes"
    assert words(0, 0, 64, None) == "received 64 bytes"
