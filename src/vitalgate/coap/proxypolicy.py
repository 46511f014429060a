"""Where a proxy may forward requests to: an allow-list of targets that is empty unless somebody fills it.

Names are judged twice: before they are looked up (nothing is looked up that no rule could permit), and by the address
that they turned out to have. That address is the one to be used, so that a name cannot mean one thing to the judge and
another to the socket.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from vitalgate.coap.uri import DEFAULT_PORTS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS: Final[dict[str, int]] = DEFAULT_PORTS | {"http": 80, "https": 443}
"""Schemes that a proxy may be asked for, and their ports."""

SPECIAL: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # IANA IPv4 and IPv6 Special-Purpose Address Registries: not reachable from everywhere, or another address's
        # disguise. A rule for the whole world does not mean them.
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "240.0.0.0/4",
        "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
    )
)  # fmt: skip
KNOWN: Final = 1024
"""Hosts and addresses whose reading is kept; the one used the longest ago makes room."""
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")


class RuleError(ValueError):
    """A text that is no rule; it says why."""


class Target(NamedTuple):
    """Whom a request is for. ``host``: a name in lower case, or an address literal without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One permission. None stands for any scheme or port; either ``host`` (a name) or ``network`` is given."""

    scheme: str | None
    host: str | None
    network: Network | None
    port: int | None

    def concerns(self, target: Target) -> bool:
        """True where scheme and port are permitted, whatever the host."""
        return self.scheme in (None, target.scheme) and self.port in (None, target.port)


def parse_rule(text: str) -> Rule:
    """A rule from 'SCHEME://HOST[:PORT]', 'SCHEME://CIDR' or 'CIDR'. Raises `RuleError`.

    Without a port the scheme's own is meant, and ':*' means any. A CIDR is about any port, and without a scheme about
    any scheme.

    >>> parse_rule("coap://sensor.example")
    Rule(scheme='coap', host='sensor.example', network=None, port=5683)
    >>> parse_rule("10.1.0.0/16")
    Rule(scheme=None, host=None, network=IPv4Network('10.1.0.0/16'), port=None)
    """
    scheme, separator, rest = text.strip().lower().rpartition("://")
    if separator and scheme not in PORTS:
        raise RuleError(f"{text!r}: the scheme is one of {', '.join(PORTS)}")
    if "/" in rest:
        try:
            network = ipaddress.ip_network(rest)
        except ValueError as error:
            raise RuleError(f"{text!r}: {error}") from error
        return Rule(scheme or None, None, network, None)
    if not separator:
        raise RuleError(f"{text!r}: write SCHEME://HOST[:PORT] or a network like 10.1.0.0/16")
    host, port = rest, ""
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise RuleError(f"{text!r}: an IPv6 address is written [ADDRESS]:PORT")
        port = port[1:]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if port not in ("", "*") and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise RuleError(f"{text!r}: the port is a number from 1 to 65535, or *")
    number = PORTS[scheme] if not port else None if port == "*" else int(port)
    address = literal(host)
    if address is not None:
        return Rule(scheme, None, ipaddress.ip_network(address), number)
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise RuleError(f"{text!r}: {host!r} is no host name or address")
    return Rule(scheme, host.rstrip("."), None, number)


@lru_cache(maxsize=KNOWN)
def literal(host: str) -> Address | None:
    """The address that ``host`` is written as; None for a name. An IPv4 address in IPv6's clothes is taken out."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Policy:
    """Rules; without any everything is denied. The reasons for a denial are fixed words, fit for counting:
    ``not_allowed``; ``special_address`` (loopback, private, link-local and the like, which a rule must name by address
    or network); ``group_address`` (multicast, broadcast, unspecified: never, for a proxy passes on one response)."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = tuple(rules)

    def __len__(self) -> int:
        return len(self._rules)

    def judge_name(self, target: Target) -> str:
        """'' where it is worth looking ``target`` up, else why it is denied. For an address literal this is final."""
        address = literal(target.host)
        if address is not None:
            return self.judge(target, str(address))
        for rule in self._rules:
            if rule.concerns(target) and (rule.network is not None or rule.host == target.host.rstrip(".")):
                return ""
        return "not_allowed"

    def judge(self, target: Target, address: str) -> str:
        """'' where ``target``, found at ``address``, may be asked; else why not."""
        found = literal(address)
        if found is None:
            return "not_allowed"
        if found.is_multicast or found.is_unspecified or address == "255.255.255.255":
            return "group_address"
        special = _special(found)
        named = False
        for rule in self._rules:
            if not rule.concerns(target):
                continue
            if rule.network is not None:
                if found in rule.network:
                    if special is None or _within(rule.network, special):
                        return ""
                    named = True
            elif rule.host == target.host.rstrip("."):
                if special is None:
                    return ""
                named = True
        return "special_address" if named else "not_allowed"


@lru_cache(maxsize=KNOWN)
def _special(address: Address) -> Network | None:
    return next((network for network in SPECIAL if address in network), None)


def _within(network: Network, special: Network) -> bool:
    # Of one version, for an address is in both.
    return network.prefixlen >= special.prefixlen
