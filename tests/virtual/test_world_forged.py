"""Datagrams in the gateway's name, from somebody who can forge its address but sees nothing of the path."""

import pytest
from worldkit import settled

from vitalgate.lab.world import CLOUD, GATEWAY, World

FORGED = {
    "oscore": b"\x97\x09\x00\x01\x02\x03\x04\x05\xffno such context",  # OSCORE option: Partial IV 0, kid 01..05
    "enroll": b"\xb6enroll\xff" + bytes(50),
    "ingest": b"\xb6ingest\xff" + bytes(50),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_message_ids_do_not_make_duplicates_of_what_the_gateway_says(kind):
    """A Message ID that was seen is not looked at again for four minutes (RFC 7252 section 4.5): 65,536 forged
    datagrams would silence a gateway for as long, and its rekeys with it."""
    with World(31) as world:
        captured = world.capture()
        world.run(5)
        last = max(int.from_bytes(data[2:4], "big") for _, (source, _), data in captured if source == GATEWAY)
        for ahead in range(1, 400):
            mid = (last + ahead & 0xFFFF).to_bytes(2, "big")
            world.inject(GATEWAY, CLOUD, b"\x40\x02" + mid + FORGED[kind])
        before = world.account().stored
        world.run(5)
        assert world.account().stored > before + 20
        assert settled(world, within=30).unheard == 0
