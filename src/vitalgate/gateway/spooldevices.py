"""The devices a spool knows: their numbers in the file, when they were last heard, and which gap is open."""

from collections.abc import Iterable
from dataclasses import replace

from vitalgate.gateway.notice import DeviceGap
from vitalgate.gateway.spoolopen import Cabinet, Device, OpenSpool
from vitalgate.gateway.spooltables import DeviceRow
from vitalgate.gateway.storage import OpeningCause


class Devices:
    """A bounded table; ``touched`` names the devices whose rows differ from the file."""

    __slots__ = ("_by_urn", "_cabinet", "_expected", "_limit", "_next_ref", "touched")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_urn: dict[str, Device] = {}
        self._next_ref = 1
        self._cabinet: Cabinet | None = None
        self._expected: set[str] = set()
        self.touched: set[str] = set()

    def adopt(self, found: Iterable[Device], cabinet: Cabinet) -> None:
        """Take over a file's devices; those known from a file that was replaced are kept, renamed under new keys."""
        self._cabinet = cabinet
        self._expected.clear()
        here = {device.urn: device for device in found}
        for urn, device in self._by_urn.items():
            if urn not in here:
                tag, sealed = self._names(device.row.ref, urn)
                here[urn] = Device(replace(device.row, tag=tag, sealed_urn=sealed), urn)
                self.touched.add(urn)
        self._by_urn = here
        self._next_ref = max(self._next_ref, 1 + max((device.row.ref for device in here.values()), default=0))

    def get(self, urn: str) -> Device | None:
        """The device called ``urn``, if it is known."""
        return self._by_urn.get(urn)

    def made(self, urn: str, heard_at: float) -> Device | None:
        """The device called ``urn``, new ones noted as heard at ``heard_at``; None when there are too many."""
        found = self._by_urn.get(urn)
        if found is None and len(self._by_urn) < self._limit:
            ref = self._next_ref
            self._next_ref += 1
            tag, sealed = self._names(ref, urn)
            found = self._by_urn[urn] = Device(DeviceRow(ref, tag, sealed, heard_at), urn)
            self.touched.add(urn)
        return found

    def names(self) -> dict[int, str]:
        """Number in the file -> URN."""
        return {device.row.ref: urn for urn, device in self._by_urn.items()}

    def changed(self) -> list[DeviceRow]:
        """The rows to write."""
        return [self._by_urn[urn].row for urn in self.touched]

    def heard(self, device: Device, at: float) -> None:
        """It spoke at wall time ``at``."""
        device.row.last_heard = at
        self.touched.add(device.urn)
        self._expected.add(device.urn)

    def silent(self, urn: str, cause: str) -> None:
        """It is silent since it was last heard, for ``cause``; an open gap stays as it is."""
        found = self._by_urn.get(urn)
        if found is not None and found.row.gap_since is None:
            found.row.gap_since, found.row.gap_cause = found.row.last_heard, cause
            self.touched.add(urn)

    def end_gap(self, device: Device, at: float) -> DeviceGap | None:
        """It is heard again at wall time ``at``: the gap that ends, if one was open."""
        row = device.row
        if row.gap_since is None:
            return None
        # The wall clock may have been set back meanwhile: a gap never ends before it starts.
        gap = DeviceGap(device.urn, row.gap_since, max(row.gap_since, at), row.gap_cause)
        row.gap_since, row.gap_cause = None, ""
        self.touched.add(device.urn)
        return gap

    def expect(self, urn: str, opening: OpenSpool, wall_now: float) -> None:
        """A one-way device is attached: open the gap of what nobody heard until now, where its start is known.

        Once for each opening: what a device says on while the gateway runs is no gap of a stopped gateway.
        """
        if opening.cause is OpeningCause.FIRST or urn in self._expected:
            return
        self._expected.add(urn)
        found, since = self._by_urn.get(urn), opening.alive
        if found is not None:
            since = found.row.last_heard if since is None else max(since, found.row.last_heard)
        if since is None:
            return
        device = self.made(urn, since)
        if device is not None and device.row.gap_since is None:
            device.row.gap_since, device.row.gap_cause = min(since, wall_now), opening.cause.value
            self.touched.add(urn)

    def _names(self, ref: int, urn: str) -> tuple[bytes, bytes]:
        assert self._cabinet is not None, "adopt comes first"
        return self._cabinet.tag(b"device", urn.encode()), self._cabinet.seal_name(ref, urn)
