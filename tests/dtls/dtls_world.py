"""Endpoints, credentials and a network for the tests of this room."""

import datetime
import functools
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from vitalgate.dtls.credentials import Credentials, OwnKey, PinnedKeys, Psk, PskStore, spki
from vitalgate.dtls.endpoint import Endpoint
from vitalgate.dtls.judging import Target

PSK = Psk(b"client1", b"0123456789abcdef", "bed-12")
WALL = 1_790_000_000.0


@functools.cache
def key(number: int):
    """A fixed P-256 key."""
    return ec.derive_private_key(0x1000 + number, ec.SECP256R1())


def certificate(number, name, *, ca=None, issuer=None, days=(-1, 365), names=(), usage=True, curve_key=None):
    """A certificate (DER) for key ``number``, signed by key ``ca`` (itself where None)."""
    start = datetime.datetime.fromtimestamp(WALL, datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    parent = subject if issuer is None else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent)
        .public_key((curve_key or key(number)).public_key())
        .serial_number(1000 + number)
        .not_valid_before(start + datetime.timedelta(days=days[0]))
        .not_valid_after(start + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
    )
    if names:
        general = []
        for each in names:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(each)))
            except ValueError:
                general.append(x509.DNSName(each))
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key(number if ca is None else ca), hashes.SHA256()).public_bytes(Encoding.DER)


@functools.cache
def authority():
    return certificate(9, "test authority")


def psk_pair(psk=PSK):
    return Credentials(psks=PskStore(ours=psk)), Credentials(psks=PskStore((psk,)))


def rpk_pair():
    client = Credentials(own=OwnKey(key(1)), pins=PinnedKeys({spki(key(2)): "cloud"}))
    server = Credentials(own=OwnKey(key(2)), pins=PinnedKeys({spki(key(1)): "gateway-7"}))
    return client, server


def x509_pair():
    client = Credentials(own=_own(3, "client-3"), anchors=(authority(),))
    server = Credentials(own=_own(4, "cloud.example"), anchors=(authority(),))
    return client, server


@functools.cache
def _own(number, name):
    made = certificate(number, name, ca=9, issuer="test authority", names=(name,))
    return OwnKey(key(number), (made,), raw=False)


NOBODY_NAMED = Target()
X509_TARGET = Target(server_name="cloud.example")


class Pair:
    """A client and a server endpoint joined by a perfect line; time stands still."""

    def __init__(self, credentials, target=NOBODY_NAMED, *, client=None, server=None, **more):
        ours, theirs = credentials
        self.client = Endpoint(ours, parameters=client, wall=lambda: WALL, **more)
        self.server = Endpoint(theirs, listening=True, parameters=server or client, wall=lambda: WALL, **more)
        self.target = target
        self.now = 0.0
        self.datagrams = []

    def connect(self):
        self.number = self.client.connect("S", self.now, self.target)
        return self.run()

    def run(self):
        """Carry datagrams until there are no more; the events of both ends."""
        while True:
            moved = False
            for source, sink, path in ((self.client, self.server, "C"), (self.server, self.client, "S")):
                for data, _ in source.datagrams_to_send(self.now):
                    moved = True
                    self.datagrams.append((source is self.client, data))
                    sink.receive_datagram(data, path, self.now)
            if not moved:
                return drain(self.client), drain(self.server)


def drain(endpoint):
    events = []
    while (event := endpoint.next_event()) is not None:
        events.append(event)
    return events
