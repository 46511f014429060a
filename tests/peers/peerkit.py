"""libcoap's and aiocoap's clients as clients under test, and what every test of a live peer needs.

Processes that are started here are ended here, each by its own id.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiocoap
import pytest

from vitalgate.coap import Code, Parameters
from vitalgate.coap.blocks import szx_of
from vitalgate.net.coap import CoapServer
from vitalgate.net.etsi.asking import Ask, Shown
from vitalgate.net.etsi.runner import Outcome, run_cases
from vitalgate.net.plugtest import Plugtest

FAST = Parameters(ack_timeout=0.1, piggyback_window=0.02, observe_interval=0.05, max_latency=0.5)
"""Timers of ours that let a test end soon; their proportions are those of RFC 7252 section 4.8."""
INTERVAL = 0.3
TIMEOUT = 20.0
TAKES_LONG = "the server gives up after 93 s, with timers that cannot be set"


def tool(*names: str) -> str:
    """The first of these programs that is installed; without one the test skips (in CI: fails)."""
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    reason = f"none of {', '.join(names)} is installed (scripts/system-packages test)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A UDP port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server_process(*command: str):
    """A server that ``{port}`` tells its port; gives the port once it answers pings."""
    port = free_port()
    process = subprocess.Popen([each.format(port=port) for each in command], stdout=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.1)
            sock.connect(("127.0.0.1", port))
            end = time.monotonic() + 15
            while True:
                assert process.poll() is None, f"{command[0]} ended"
                assert time.monotonic() < end, f"{command[0]} does not answer"
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    sock.send(b"\x40\x00\x00\x01")
                    if sock.recv(100):
                        break
        yield port
    finally:
        process.kill()
        process.wait()


def libcoap_server(*more: str):
    """libcoap's sample server; clients may create up to 30 resources."""
    program = tool("coap-server-notls", "coap-server-openssl")
    return server_process(program, "-A", "127.0.0.1", "-p", "{port}", "-d", "30", *more)


def aiocoap_server():
    """aiocoap's server with the resources of the plugtests."""
    return server_process(sys.executable, str(Path(__file__).with_name("aiocoap_plugtest.py")), "{port}")


@contextlib.asynccontextmanager
async def our_server():
    """Our plugtest server; gives its port."""
    async with CoapServer(parameters=FAST) as server:
        plugtest = Plugtest(server, separate_after=0.15, interval=INTERVAL)
        _, port = server.bind("127.0.0.1", 0)
        changing = asyncio.create_task(plugtest.run())
        try:
            yield port
        finally:
            changing.cancel()


class LibcoapClient:
    """libcoap's coap-client, a process for each request."""

    name = "libcoap"

    def __init__(self) -> None:
        self._program = tool("coap-client-notls", "coap-client-openssl")
        self._folder = tempfile.TemporaryDirectory()
        self._count = 0

    def _command(self, address, ask: Ask, output: Path) -> list[str]:
        command = [self._program, "-m", Code(ask.code).name.lower(), "-B", str(int(TIMEOUT)), "-o", str(output)]
        if not ask.confirmable:
            command.append("-N")
        if ask.content_format is not None:
            command += ["-t", str(ask.content_format)]
        if ask.accept is not None:
            command += ["-A", str(ask.accept)]
        if ask.payload:
            given = output.with_suffix(".in")
            given.write_bytes(ask.payload)
            command += ["-f", str(given)]
        if ask.block is not None:
            command += ["-b", str(ask.block)]
        command += ["-T", f"{self._count:02d}"]
        for number, value in ask.extra():
            command += ["-O", f"{int(number)},0x{value.hex()}" if value else f"{int(number)},"]
        return [*command, ask.uri(address)]

    def _output(self) -> Path:
        self._count += 1
        return Path(self._folder.name) / f"{self._count}"

    async def _run(self, command: list[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )

    async def ask(self, address, ask: Ask) -> Shown | None:
        output = self._output()
        process = await self._run(self._command(address, ask, output))
        await _end(process, TIMEOUT)
        return Shown(None, output.read_bytes() if output.exists() else b"")

    async def ping(self, address) -> bool:
        # It pings after a second without traffic: while it waits for a response that it asked not to get.
        ask = Ask(Code.GET, "test", confirmable=False)
        command = self._command(address, ask, self._output())
        process = await self._run([*command[:-1], "-v", "7", "-K", "1", "-O", "258,0x1a", "-B", "2", command[-1]])
        log, _ = await process.communicate()
        return b"t:RST" in log

    @contextlib.asynccontextmanager
    async def observe(self, address, ask: Ask):
        shown: list[Shown] = []
        output = self._output()
        command = self._command(address, ask, output)
        process = await self._run([*command[:-1], "-s", "2", command[-1]])
        try:
            yield shown
        finally:
            await _end(process, TIMEOUT)
            if output.exists():
                shown.append(Shown(None, output.read_bytes()))

    async def reboot(self) -> None:
        """A process is gone with its port; OBS_06 is left out."""

    async def close(self) -> None:
        self._folder.cleanup()


async def _end(process: asyncio.subprocess.Process, within: float) -> None:
    try:
        async with asyncio.timeout(within):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


class AiocoapClient:
    """aiocoap's client."""

    name = "aiocoap"

    def __init__(self) -> None:
        self._context: aiocoap.Context | None = None

    async def _message(self, address, ask: Ask) -> aiocoap.Message:
        if self._context is None:
            self._context = await aiocoap.Context.create_client_context()
        tuning = aiocoap.Reliable() if ask.confirmable else aiocoap.Unreliable()
        message = aiocoap.Message(
            code=aiocoap.Code(ask.code), payload=ask.payload, uri=ask.uri(address), transport_tuning=tuning
        )
        message.opt.content_format = ask.content_format
        message.opt.accept = ask.accept
        if ask.etag:
            message.opt.etags = [ask.etag]
        if ask.if_match is not None:
            message.opt.if_match = [ask.if_match]
        message.opt.if_none_match = ask.if_none_match
        if ask.block is not None:
            if ask.payload:
                await self._context.find_remote_and_interface(message)
                message.remote.maximum_block_size_exp = szx_of(ask.block)
            else:
                message.opt.block2 = (0, False, szx_of(ask.block))
        return message

    async def ask(self, address, ask: Ask) -> Shown | None:
        message = await self._message(address, ask)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._context.request(message).response
        except (TimeoutError, aiocoap.error.Error):
            return None
        return Shown(int(response.code), response.payload)

    @contextlib.asynccontextmanager
    async def observe(self, address, ask: Ask):
        message = await self._message(address, ask)
        message.opt.observe = 0
        request = self._context.request(message)
        shown: list[Shown] = []

        async def collect() -> None:
            response = await request.response
            shown.append(Shown(int(response.code), response.payload))
            with contextlib.suppress(aiocoap.error.Error):
                async for each in request.observation:
                    shown.append(Shown(int(each.code), each.payload))

        collecting = asyncio.create_task(collect())
        try:
            yield shown
        finally:
            if not request.observation.cancelled:
                request.observation.cancel()
            collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await collecting

    async def reboot(self) -> None:
        await self.close()

    async def ping(self, address) -> bool:
        """It has none; CORE_31 is left out."""
        return False

    async def close(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            await context.shutdown()


@dataclass(frozen=True)
class Deviation:
    """A case that a peer does not pass: why, and the checks that fail."""

    why: str
    checks: tuple[str, ...]


def judge(outcome: Outcome, left_out: dict[str, str], deviations: dict[str, Deviation]) -> None:
    """The outcome is what the tables of this pair say: exactly these checks fail, so that a peer that got better is
    noticed as well as one that got worse."""
    if outcome.case.id in left_out:
        assert (outcome.verdict, outcome.reason) == ("left out", left_out[outcome.case.id])
        return
    known = deviations.get(outcome.case.id)
    failed = {check.text: check.seen for check in outcome.checks if not check.passed}
    report = "\n".join(["", *(f"{text}: {seen}" for text, seen in failed.items()), *outcome.wire])
    assert outcome.checks, "nothing was checked"
    assert sorted(failed) == sorted(known.checks if known else ()), report


def run(host_port_of, make_asker, **more) -> dict[str, Outcome]:
    """All cases of one pair: by id. ``host_port_of``: an asynchronous context manager that gives the server's port."""

    async def main() -> list[Outcome]:
        async with host_port_of as port:
            return await run_cases("127.0.0.1", port, make_asker, parameters=FAST, **more)

    return {each.case.id: each for each in asyncio.run(main())}


@contextlib.asynccontextmanager
async def port_of(process):
    """A server process as `run` takes it."""
    with process as port:
        yield port
