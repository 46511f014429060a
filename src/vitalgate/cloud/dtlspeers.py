"""Which gateways the cloud knows under DTLS: the table of credentials follows the sessions that enrolment tells of.

A gateway is known by its identity key and by its pre-shared key as long as it has a session here, just as under OSCORE:
a session that is revoked or ended takes the credentials out of service, and with a gateway's last session its
associations end. A gateway that is still enrolled makes a new session by /rekey and is known again.
"""

from vitalgate.cloud.enrolment_events import ContextAdded, ContextRemoved, Event
from vitalgate.cloud.identity import CloudIdentity
from vitalgate.dtls.credentials import Credentials, Mode, OwnKey, PinnedKeys, PskStore
from vitalgate.gateway.dtlskeys import dtls_of, psk_identity, raw_public_key, session_psk


class DtlsPeers:
    """``credentials`` for the cloud's DTLS endpoint under these stacks, kept up to date by `apply`."""

    def __init__(self, identity: CloudIdentity, stacks: tuple[str, ...]) -> None:
        modes = {dtls_of(stack).mode for stack in stacks}
        self._psks = PskStore()
        self._pins = PinnedKeys()
        self._sessions: dict[bytes, tuple[str, bytes]] = {}
        """By kid: the gateway and its raw public key."""
        self.credentials = Credentials(
            psks=self._psks if Mode.PSK in modes else None,
            own=OwnKey(identity.key.private) if Mode.RPK in modes else None,
            pins=self._pins if Mode.RPK in modes else None,
        )

    def apply(self, event: Event) -> str:
        """Do what a session's event says; other events change nothing. Returns the name of a gateway that has no
        session any more, whose associations have to end, or ''."""
        if isinstance(event, ContextAdded):
            public = raw_public_key(event.public)
            self._sessions[event.kid] = event.gateway, public
            self._psks.add(session_psk(event.keys, event.kid, event.gateway))
            self._pins.add(public, event.gateway)
        elif isinstance(event, ContextRemoved):
            _, public = self._sessions.pop(event.kid, ("", b""))
            self._psks.remove(psk_identity(event.kid))
            if all(public != others for _, others in self._sessions.values()):
                self._pins.remove(public)
            if all(event.gateway != others for others, _ in self._sessions.values()):
                return event.gateway
        return ""
