"""Runs a simulator against the real world: a pseudo-terminal for serial devices, a TCP call for networked ones.

The simulator never waits. What the line does not take is lost, as on a cable that nobody reads; what was produced is
written to a journal (one frame hash in hex a line), so that anyone can count what was heard.
"""

import asyncio
import contextlib
import errno
import os
import pty
import time
import tty
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vitalgate.devices.contract import Simulator
from vitalgate.net.stream import TcpCaller


class _Line(Protocol):
    def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class PtyLine:
    """The device's end of a pseudo-terminal pair; the gateway opens ``link``, a symbolic link to the other end.

    A link that an earlier simulator left is replaced; anything else at ``link`` is `FileExistsError`. Until a runner is
    attached, nobody speaks.
    """

    def __init__(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise FileExistsError(errno.EEXIST, "is no link that a simulator made; name a path that is free", str(link))
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._link = link
        self._runner: SimulatorRunner | None = None
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._slave))

    def attach(self, runner: "SimulatorRunner") -> None:
        """``runner`` speaks and hears from now on."""
        self._runner = runner
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        runner.opened(self._link)

    def write(self, data: bytes) -> None:
        """Write what the line takes; the rest is lost, as it is on a real one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, data)

    async def close(self) -> None:
        """Take the terminal and its link away."""
        asyncio.get_running_loop().remove_reader(self._master)
        self._link.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)

    def _readable(self) -> None:
        assert self._runner is not None
        with contextlib.suppress(BlockingIOError):
            self._runner.data(self._link, os.read(self._master, 4096))


@dataclass(frozen=True, slots=True)
class SimulatorReport:
    """What a simulator did: frames produced, seconds run."""

    frames: int
    seconds: float


class SimulatorRunner:
    """Turns one simulator on one line; implements the stream drivers' owner interface."""

    def __init__(self, simulator: Simulator, journal: Path | None) -> None:
        self._simulator = simulator
        self._journal = journal.open("a", encoding="ascii", buffering=1) if journal else None
        self._line: _Line | None = None
        self._heard = asyncio.Event()
        self._off = False
        self.frames = 0

    async def run(
        self, *, line: PtyLine | None, connect: tuple[str, int] | None, seconds: float | None
    ) -> SimulatorReport:
        """Play until cancelled or for ``seconds``, on a pseudo-terminal or a call to ``connect``."""
        started = time.monotonic()
        if line is not None:
            self._line = line
            line.attach(self)
        else:
            assert connect is not None
            self._line = TcpCaller(*connect, self)
        end = None if seconds is None else started + seconds
        try:
            while end is None or time.monotonic() < end:
                due = self._simulator.next_timeout()
                wake = min(time.monotonic() + 1.0 if due is None else due, end or float("inf"))
                await asyncio.sleep(max(0.0, wake - time.monotonic()))
                if self._off:
                    break
                self._simulator.handle_timeout(time.monotonic())
                self._flush()
            if self._off:
                await asyncio.Event().wait()  # the line stays, silent, until the runner is cancelled
            await self._drain(2.0)
        finally:
            await self._line.close()
            if self._journal is not None:
                self._journal.close()
        return SimulatorReport(self.frames, time.monotonic() - started)

    def switch_off(self) -> None:
        """Say no more, but leave the line as it is, so that what was said last can still be heard."""
        self._off = True

    def opened(self, conn: Hashable) -> None:
        """The line is open."""
        self._simulator.connection_made(time.monotonic())
        self._flush()

    def data(self, conn: Hashable, data: bytes) -> None:
        """The gateway said something."""
        self._simulator.receive_data(data, time.monotonic())
        self._heard.set()
        self._flush()

    def closed(self, conn: Hashable, reason: str) -> None:
        """The line is gone."""
        self._simulator.connection_lost(time.monotonic())

    def _flush(self) -> None:
        for name in self._simulator.sent_frames():
            self.frames += 1
            if self._journal is not None:
                self._journal.write(name.hex() + "\n")
        if self._line is not None:
            self._line.write(self._simulator.data_to_send(time.monotonic()))

    async def _drain(self, seconds: float) -> None:
        """Give a two-way device the chance to hear the answers it still waits for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._simulator.waiting():
                    self._heard.clear()
                    await self._heard.wait()
