"""Faults around the processes of a whole run: the network between them cut and replayed, garbage on every port, a disk
that is full for a while."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess

import pytest

from vitalgate.cli.demonstration import Demonstration, free_port

pytestmark = pytest.mark.e2e

SEED = 20261124


class Relay:
    """Stands between gateway and cloud: passes datagrams on, keeps a copy of what goes to the cloud, can be cut."""

    def __init__(self):
        self.captured = []
        self.is_cut = False
        self._front = self._socket()
        self._backs = {}
        self._cloud = None

    @staticmethod
    def _socket():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        return made

    def route(self, cloud_port):
        self._cloud = ("127.0.0.1", cloud_port)
        asyncio.get_running_loop().add_reader(self._front, self._from_gateway)
        return self._front.getsockname()[1]

    def _from_gateway(self):
        data, gateway = self._front.recvfrom(65536)
        back = self._backs.get(gateway)
        if back is None:
            back = self._backs[gateway] = self._socket()
            asyncio.get_running_loop().add_reader(back, self._from_cloud, back, gateway)
        self.captured.append((data, gateway))
        if not self.is_cut:
            back.sendto(data, self._cloud)

    def _from_cloud(self, back, gateway):
        with contextlib.suppress(ConnectionRefusedError):  # the cloud is being killed
            data, _ = back.recvfrom(65536)
            if not self.is_cut:
                self._front.sendto(data, gateway)

    def replay(self, *, from_the_same_address):
        """Everything again that ever went to the cloud."""
        stranger = self._socket()
        for data, gateway in self.captured:
            (self._backs[gateway] if from_the_same_address else stranger).sendto(data, self._cloud)
        stranger.close()

    def garbage(self, rng, count):
        """Nonsense, and captured datagrams cut short or with a bit flipped."""
        back = next(iter(self._backs.values()))
        for _ in range(count):
            data = bytearray(rng.choice(self.captured)[0] if rng.random() < 0.7 else rng.randbytes(rng.randrange(200)))
            if data and rng.random() < 0.5:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif rng.random() < 0.5:
                del data[rng.randrange(len(data) + 1) :]
            back.sendto(bytes(data), self._cloud)

    def close(self):
        loop = asyncio.get_running_loop()
        for each in (self._front, *self._backs.values()):
            loop.remove_reader(each)
            each.close()


def hl7_frames(folder):
    """(what the HL7 monitor said, how often the gateway has each) of a finished run."""
    said = (folder / "hl7.journal").read_text().split()
    ledger = json.loads((folder / "gateway" / "data" / "ledger.json").read_text())
    (heard,) = (frames for urn, frames in ledger["frames"].items() if "hl7" in urn)
    return said, heard


async def until_listening(port):
    for _ in range(300):
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody listens at port {port}")


def shout(port, data):
    """One TCP connection that brings ``data`` and waits to be thrown out, or for an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
        stranger.settimeout(5)
        with contextlib.suppress(OSError):
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass


def test_a_cut_line_a_killed_cloud_a_replay_and_garbage_change_nothing(tmp_path):
    rng = random.Random(SEED)
    print(f"seed {SEED}")

    async def scenario():
        relay = Relay()
        web = free_port(socket.SOCK_STREAM)
        demonstration = Demonstration("coap-oscore", folder=tmp_path / "demo", dashboard_port=web, route=relay.route)
        try:
            await demonstration.start()
            await asyncio.sleep(2)
            relay.is_cut = True
            await asyncio.sleep(3)
            relay.is_cut = False
            await asyncio.sleep(3)
            await demonstration.crash("cloud")
            await until_listening(web)
            relay.replay(from_the_same_address=True)
            relay.replay(from_the_same_address=False)
            relay.garbage(rng, 500)
            gateway = (tmp_path / "demo" / "gateway" / "gateway.toml").read_text()
            hl7 = int(gateway.split('listen = "127.0.0.1:')[2].split('"')[0])
            for port in (hl7, web):
                for data in (rng.randbytes(3000), b"\x0b" + b"MSH|^~\\&|" * 1000, b"\x0bMSH|\x1c\r", b""):
                    await asyncio.to_thread(shout, port, data)
            await asyncio.sleep(2)
            relay.replay(from_the_same_address=True)
            result = await demonstration.finish()
            return result, demonstration.gaps(), len(relay.captured)
        finally:
            await demonstration.clean_up()
            relay.close()

    result, gaps, captured = asyncio.run(scenario())
    print(f"{result}, gaps {gaps}, {captured} datagrams captured")
    assert captured > 100
    assert (result["lost"], result["duplicated"], result["device_gaps"]) == (0, 0, 0)
    assert result["observations_stored"] > 60
    said, heard = hl7_frames(tmp_path / "demo")
    assert said
    assert [name for name in said if heard.get(name, 0) != 1] == []


def test_a_full_disk_for_a_while_loses_nothing_that_was_committed_and_no_message(tmp_path):
    data = tmp_path / "demo" / "gateway" / "data"
    data.mkdir(parents=True, mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", str(data)],
        capture_output=True, text=True, check=False,
    ) if os.geteuid() == 0 and shutil.which("mount") else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip() if mounted else 'not root'}")

    async def scenario():
        relay = Relay()
        demonstration = Demonstration("coap-oscore", folder=tmp_path / "demo", route=relay.route)
        log = tmp_path / "demo" / "gateway" / "gateway.jsonl"

        async def until(event):
            for _ in range(300):
                if f'"{event}"' in log.read_text():
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(f"no {event} in the log")

        try:
            await demonstration.start()
            await asyncio.sleep(1)
            relay.is_cut = True  # so that the spool must grow
            with (data / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(4096))
            await until("the spool cannot write")
            await asyncio.sleep(2)
            (data / "ballast").unlink()
            relay.is_cut = False
            await until("the spool writes again")
            await asyncio.sleep(2)
            return await demonstration.finish()
        finally:
            await demonstration.clean_up()
            relay.close()

    try:
        result = asyncio.run(scenario())
        print(result)
        assert (result["lost"], result["duplicated"]) == (0, 0)
        said, heard = hl7_frames(tmp_path / "demo")
        assert [name for name in said if heard.get(name, 0) != 1] == []
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)
