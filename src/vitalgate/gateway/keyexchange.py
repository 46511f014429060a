"""Drives one enrolment or rekey run on a socket of its own, for the command line."""

import asyncio
import time
from collections.abc import Sequence

from vitalgate.coap.endpoint import Endpoint
from vitalgate.counters import Counters
from vitalgate.gateway.enrolment import Begin, EnrolmentFailed, EnrolmentRun, KeysEstablished
from vitalgate.gateway.exchange import Established
from vitalgate.net.udp import UdpDriver, client_socket, resolve


class KeyExchangeError(RuntimeError):
    """The run ended without keys; the text says why and what to do."""


async def exchange_keys(cloud: tuple[str, int], begins: Sequence[Begin], seconds: float) -> Established:
    """Run with the cloud at (host, port), at most ``seconds``. Raises `KeyExchangeError` and `AddressError`."""
    _, path = resolve(*cloud)
    counters = Counters()
    run = EnrolmentRun(Endpoint(counters=counters), path, begins, counters=counters)
    ended: asyncio.Future[KeysEstablished | EnrolmentFailed] = asyncio.get_running_loop().create_future()

    def on_turn(_now: float) -> None:
        event = run.next_event()
        if event is not None and not ended.done():
            ended.set_result(event)

    run.start(time.monotonic())
    driver = UdpDriver(run, client_socket(path), on_turn=on_turn, counters=counters)
    try:
        event = await asyncio.wait_for(ended, seconds)
    except TimeoutError as error:
        raise KeyExchangeError(
            f"{cloud[0]}:{cloud[1]} did not answer in {seconds:.0f} s; does the cloud run, is the address right?"
        ) from error
    finally:
        driver.close()
    if isinstance(event, EnrolmentFailed):
        raise KeyExchangeError(f"{event.failure.value} ({event.detail}); nothing was changed here")
    return event.established
