"""Runs the test cases of a client against a server and says what came of each."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vitalgate.coap.parameters import Parameters
from vitalgate.net.coap import CoapClient, RequestError
from vitalgate.net.etsi import block, core, link, observe  # noqa: F401  # they enter their cases
from vitalgate.net.etsi.asking import Asker
from vitalgate.net.etsi.trial import CASES, PATIENCE, AbandonedError, Case, Check, LeftOutError, Trial
from vitalgate.net.etsi.wire import Relay
from vitalgate.net.udp import resolve

MAX_AT_ONCE = 8
"""Cases that run at the same time; those of one resource run one after another."""
NO_ANSWER = "the server did not answer when it was prepared"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case: it passed, failed, or was left out for ``reason``. ``wire``: the datagrams in words."""

    case: Case
    checks: tuple[Check, ...] = ()
    reason: str = ""
    wire: tuple[str, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """'pass', 'fail' or 'left out'."""
        if not self.checks:
            return "left out"
        return "pass" if all(check.passed for check in self.checks) else "fail"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.case.id,
            "objective": self.case.objective,
            "sections": self.case.sections,
            "verdict": self.verdict,
            "reason": self.reason,
            "checks": [{"text": each.text, "passed": each.passed, "seen": each.seen} for each in self.checks],
            "wire": list(self.wire),
        }


async def run_cases(
    host: str,
    port: int,
    make_asker: Callable[[], Asker],
    *,
    only: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
    nudge_after: float = 6.0,
    parameters: Parameters = Parameters(),  # noqa: B008  # frozen
) -> list[Outcome]:
    """Run the cases (``only`` these, by id) of clients from ``make_asker`` against ``host``:``port``, and return their
    outcomes in the order of the list. ``names``: the server's own names of resources; ``left_out``: reasons why cases
    cannot be run with this client and server; ``patience`` and ``nudge_after``: see `Trial`; ``parameters`` are
    taken to be the server's too. Raises `AddressError`."""
    _, address = resolve(host, port)
    chosen = [CASES[each] for each in only] or list(CASES.values())
    locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    at_once = asyncio.Semaphore(MAX_AT_ONCE)
    missing = left_out or {}

    async def one(case: Case) -> Outcome:
        if case.id in missing:
            return Outcome(case, reason=missing[case.id])
        async with locks[case.resources[0] if case.resources else ""], at_once:
            relay, asker = Relay(address), make_asker()
            helper = CoapClient(parameters=parameters)
            trial = Trial(
                relay,
                asker,
                (address[0], address[1]),
                helper,
                names or {},
                parameters.max_latency,
                parameters.max_transmit_wait,
                patience,
                nudge_after,
            )
            try:
                await case.steps(trial)
            except LeftOutError as error:
                return Outcome(case, reason=str(error))
            except AbandonedError:
                pass  # the check that failed is noted
            except RequestError as error:
                trial.check(NO_ANSWER, False, error)
            finally:
                await asker.close()
                helper.close()
                relay.close()
            return Outcome(case, tuple(trial.checks), "", tuple(str(seen) for seen in relay.seen))

    return await asyncio.gather(*(one(case) for case in chosen))
