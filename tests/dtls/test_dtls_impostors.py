"""Whoever shows a key without holding it is refused, at either end, in either version: the signatures are checked."""

import dataclasses

import pytest
from dtls_world import NOBODY_NAMED, X509_TARGET, Pair, key, rpk_pair, x509_pair

from vitalgate.dtls.credentials import OwnKey
from vitalgate.dtls.events import Connected
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3


class Impostor(OwnKey):
    """Shows another's public key or chain, and signs with its own."""

    def __post_init__(self):
        """The check that would keep an honest configuration from this is left out."""

    def certificates(self, kind):
        return self.chain


PAIRS = {"rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("end", ["client", "server"])
def test_a_key_that_is_shown_and_not_held(version, mode, end):
    make, target = PAIRS[mode]
    client, server = make()
    honest = client if end == "client" else server
    shown = (honest.own.spki,) if mode == "rpk" else honest.own.chain
    false = dataclasses.replace(honest, own=Impostor(key(77), shown, raw=mode == "rpk"))
    pair = (false, server) if end == "client" else (client, false)
    world = Pair(pair, target, client=Parameters(versions=(version,)))
    ours, theirs = world.connect()
    victim = theirs if end == "client" else ours
    assert not [event for event in victim if isinstance(event, Connected)]
    assert [event.alert for event in victim] == [51]
