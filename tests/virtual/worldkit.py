"""What the tests of whole worlds share: links that lose, and what must be true of every account."""

from collections import Counter

from vitalgate.lab.account import Account
from vitalgate.lab.world import World, causes
from vitalgate.net.virtual import Link

IVY, NONIN, HL7 = "urn:dev:example:lab:ivy450c-1", "urn:dev:example:lab:nonin-2", "urn:dev:example:lab:hl7-3"


def lossy(loss: float = 0.05, **model: float) -> Link:
    """Both directions of a link that loses."""
    return Link(loss=loss, **model)


def settled(world: World, *, within: float = 600.0, once: bool = True, one_clock: bool = True) -> Account:
    """Let everything be delivered; nothing promised was lost or doubled, every silence was told with its cause, and
    every message of the two-way device is in the store (``once``: and was committed once, however often it was sent).

    Where the clock was set back during a silence (``one_clock`` False) its gap cannot be held to moments.
    """
    world.finish(within=within)
    account = world.account()
    assert (account.lost, account.duplicated, account.missing) == (0, 0, 0), account
    assert (account.dropped, account.unanswered) == (0, 0), account
    assert account.untold == 0 or not one_clock, world.untold()
    assert account.stored == account.committed > 0
    monitor = next(device for device in world.devices if device.urn == HL7)
    assert monitor.simulator.given_up == monitor.simulator.rejected == 0
    assert monitor.said.keys() == world.store.read.frame_hashes()[HL7].keys()
    heard = world.book.frames()[HL7]
    assert heard == monitor.said if once else heard.keys() == monitor.said.keys()
    for epoch in world.epochs():
        assert epoch.contiguous == epoch.highest == epoch.stored, epoch
    return account


def told(world: World) -> Counter[tuple[str, str]]:
    """How many gaps of each (device, cause) the store knows."""
    return causes(world.gaps())
