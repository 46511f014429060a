"""The databases of RFC 4301: SPD (section 4.4.1), SAD (4.4.2), PAD (4.4.3). All bounded."""

import enum
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, TypeAlias

from vitalgate.ipsec.ah import AhInbound, AhOutbound
from vitalgate.ipsec.algorithms import SuiteError
from vitalgate.ipsec.esp import EspInbound, EspOutbound
from vitalgate.ipsec.selectors import Flow, Selector

Inbound: TypeAlias = EspInbound | AhInbound
Outbound: TypeAlias = EspOutbound | AhOutbound
Key: TypeAlias = tuple[int, int]
"""(protocol, SPI): what names an SA of one direction."""
MAX_ASSOCIATIONS: Final = 4096
MAX_RULES: Final = 1024
MAX_FLOWS: Final = 4096
"""Flows whose rule is remembered; all are forgotten when there are more."""


class Action(enum.Enum):
    """What is done with traffic."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the SPD. ``outbound``: the SAs that protect, the innermost first; ``inbound``: the bundles of SAs
    that traffic may have come through, each in the same order (more than one while SAs are replaced). A PROTECT rule
    without SAs asks for them (an `Acquire` event)."""

    name: str
    action: Action
    selectors: tuple[Selector, ...]
    outbound: tuple[Key, ...] = ()
    inbound: tuple[tuple[Key, ...], ...] = ()


class Policies:
    """The SPD: the first rule that covers a packet decides, and what none covers is discarded."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self._rules: tuple[Rule, ...] = ()
        self._out: dict[Flow, Rule | None] = {}
        self._in: dict[Flow, Rule | None] = {}
        self.ports = False
        self.replace(rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """In their order."""
        return self._rules

    def replace(self, rules: tuple[Rule, ...]) -> None:
        """Put other rules in force. Raises ValueError for too many, or two of one name."""
        if len(rules) > MAX_RULES or len({rule.name for rule in rules}) != len(rules):
            raise ValueError(f"at most {MAX_RULES} rules, each of its own name")
        self._rules = rules
        self._out.clear()
        self._in.clear()
        self.ports = any(selector.ports for rule in rules for selector in rule.selectors)

    def update(self, rule: Rule) -> None:
        """Put ``rule`` in the place of the one with its name. Raises KeyError."""
        names = [each.name for each in self._rules]
        if rule.name not in names:
            raise KeyError(rule.name)
        self.replace(tuple(rule if each.name == rule.name else each for each in self._rules))

    def outbound(self, flow: Flow) -> Rule | None:
        """The rule for a packet on its way out."""
        try:
            return self._out[flow]
        except KeyError:
            found = next((rule for rule in self._rules if any(each.outbound(flow) for each in rule.selectors)), None)
            return _remember(self._out, flow, found)

    def inbound(self, flow: Flow) -> Rule | None:
        """The rule for a packet that came in."""
        try:
            return self._in[flow]
        except KeyError:
            found = next((rule for rule in self._rules if any(each.inbound(flow) for each in rule.selectors)), None)
            return _remember(self._in, flow, found)


def _remember(flows: dict[Flow, Rule | None], flow: Flow, rule: Rule | None) -> Rule | None:
    if len(flows) >= MAX_FLOWS:
        flows.clear()
    flows[flow] = rule
    return rule


@dataclass(slots=True)
class Sending:
    """An outbound SA and where its packets go (the engine's path; None: as whole IP packets)."""

    association: Outbound
    path: Hashable | None


class Associations:
    """The SAD. Inbound SAs are found by protocol and SPI, those of groups by both addresses as well (section 4.1).

    The same keying material in two SAs is refused: counters would give one IV twice. Digests of keys stay after an SA
    is removed, up to a bound, so that a key does not come back either.
    """

    def __init__(self) -> None:
        self._inbound: dict[Key, Inbound] = {}
        self._groups: dict[tuple[int, int, bytes, bytes], Inbound] = {}
        self._outbound: dict[Key, Sending] = {}
        self._keys: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._inbound) + len(self._groups) + len(self._outbound)

    def add_inbound(self, association: Inbound) -> None:
        """Raises `SuiteError` for a key or SPI in use, or too many."""
        parameters = association.parameters
        key = (parameters.protocol, parameters.spi)
        group = (*key, parameters.destination, parameters.source)
        if (group in self._groups) if parameters.multicast else (key in self._inbound):
            raise SuiteError(f"SPI {parameters.spi:#x} is in use")
        self._check(parameters.key)
        if parameters.multicast:
            self._groups[group] = association
        else:
            self._inbound[key] = association

    def add_outbound(self, association: Outbound, path: Hashable | None = None) -> None:
        """Raises `SuiteError` for a key or SPI in use, or too many."""
        parameters = association.parameters
        key = (parameters.protocol, parameters.spi)
        if key in self._outbound:
            raise SuiteError(f"SPI {parameters.spi:#x} is in use")
        self._check(parameters.key)
        self._outbound[key] = Sending(association, path)

    def _check(self, key: bytes) -> None:
        if len(self) >= MAX_ASSOCIATIONS:
            raise SuiteError(f"no more than {MAX_ASSOCIATIONS} associations")
        digest = hashlib.sha256(b"vitalgate sa key" + key).digest()
        if digest in self._keys:
            raise SuiteError("the same keying material in two associations")
        if len(self._keys) >= 4 * MAX_ASSOCIATIONS:
            del self._keys[next(iter(self._keys))]
        self._keys[digest] = None

    def inbound(self, protocol: int, spi: int) -> Inbound | None:
        """The SA that a unicast packet names."""
        return self._inbound.get((protocol, spi))

    def group(self, protocol: int, spi: int, destination: bytes, source: bytes) -> Inbound | None:
        """The SA that a packet to a group names."""
        return self._groups.get((protocol, spi, destination, source))

    def outbound(self, key: Key) -> Sending | None:
        """The sender's SA named ``key``."""
        return self._outbound.get(key)

    def remove(self, association: Inbound | Outbound) -> None:
        """Forget an SA. Raises KeyError for one that is not there."""
        parameters = association.parameters
        key = (parameters.protocol, parameters.spi)
        sending = self._outbound.get(key)
        if sending is not None and sending.association is association:
            del self._outbound[key]
        elif self._inbound.get(key) is association:
            del self._inbound[key]
        else:
            group = (*key, parameters.destination, parameters.source)
            if self._groups.get(group) is not association:
                raise KeyError(key)
            del self._groups[group]

    def all_inbound(self) -> list[Inbound]:
        """Those of receivers."""
        return [*self._inbound.values(), *self._groups.values()]

    def all_outbound(self) -> list[Sending]:
        """Those of senders."""
        return list(self._outbound.values())


class Method(enum.Enum):
    """How a peer is authenticated."""

    MANUAL = "manual"
    PSK = "psk"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of the PAD: who may have SAs, proved how, and for which remote addresses."""

    identity: str
    method: Method
    addresses: tuple[tuple[bytes, bytes], ...]

    def may(self, selector: Selector) -> bool:
        """Whether the peer may stand for every remote address of ``selector`` (section 4.4.3.3)."""
        return all(
            any(len(low) == len(first) and low <= first and last <= high for low, high in self.addresses)
            for first, last in selector.remote
        )


class Peers:
    """The PAD: the first entry with an identity counts."""

    def __init__(self, peers: tuple[Peer, ...] = ()) -> None:
        if len(peers) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} peers")
        self._peers = peers

    def find(self, identity: str) -> Peer | None:
        """The entry for ``identity``, None for a stranger."""
        return next((peer for peer in self._peers if peer.identity == identity), None)
