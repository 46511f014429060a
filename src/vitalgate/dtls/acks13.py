"""ACKs while a handshake of DTLS 1.3 lasts (RFC 9147 section 7), sent and received."""

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.flights import Flight
from vitalgate.dtls.messages13 import decode_ack, encode_ack
from vitalgate.dtls.reading13 import FIRST_APPLICATION_EPOCH
from vitalgate.dtls.records import ContentType

QUARTER = 0.25
"""Of the retransmission timer: so long the rest of a flight may take before we say what came (section 7.1)."""
MOST_NUMBERS = 32
"""Record numbers in one ACK: the newest."""


class Acks13:
    """What came of the peer's flight under way, and the timer that says so when the rest does not come."""

    __slots__ = ("_association", "due", "numbers")

    def __init__(self, association: Association) -> None:
        self._association = association
        self.due: float | None = None
        self.numbers: list[tuple[int, int]] = []

    def record(self, epoch: int, sequence: int, *, kept: bool, now: float) -> None:
        """A record of handshake messages came. One that could not be kept is not acknowledged."""
        if not kept:
            return
        self.numbers.append((epoch, sequence))
        del self.numbers[:-MOST_NUMBERS]
        if self.due is None:
            wait = self._association.core.parameters.retransmission * QUARTER
            self._association.core.timers.set(self, now + wait)

    def last(self, epoch: int, sequence: int) -> None:
        """A record completed the handshake: the client's last flight is acknowledged at once, as nothing answers it."""
        self._association.core.timers.clear(self)
        if self._association.established and not self._association.client:
            self.numbers.append((epoch, sequence))
            self.send()

    def next_flight(self) -> None:
        """We answer: what came before is acknowledged by that."""
        self.numbers.clear()
        self._association.core.timers.clear(self)

    def on_due(self, now: float) -> None:
        """The rest of the flight did not come in time."""
        self.send()

    def send(self) -> None:
        """Say what came, in the highest epoch that we can write."""
        association = self._association
        epoch = association.seal.epoch
        numbers = [number for number in self.numbers if number[0] <= epoch]
        association.core.counters.add("dtls_acks_sent")
        association.send_content(ContentType.ACK, encode_ack(numbers))

    def receive(self, content: bytes, epoch: int, now: float) -> None:
        """The peer says what it has of our flight."""
        take_ack(self._association, content, epoch, [self._association.flight], now)

    def ended(self) -> None:
        """No more."""
        self._association.core.timers.clear(self)


def take_ack(
    association: Association, content: bytes, epoch: int, flights: list[Flight | None], now: float
) -> list[Flight]:
    """Take an ACK for ``flights``; returns those that are complete with it. Of the others what is missing is sent
    again, if the ACK told something (section 7.2). Raises `HandshakeError`."""
    numbers = decode_ack(content)
    # Only handshake epochs compare: after a key update of one end alone, that end's epochs are ahead of the other's.
    if epoch < FIRST_APPLICATION_EPOCH and any(number[0] > epoch for number in numbers):
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "an ACK of an epoch that its own record is older than")
    complete: list[Flight] = []
    core = association.core
    for flight in flights:
        if flight is None:
            continue
        news = flight.acknowledge(numbers)
        if flight.complete:
            core.timers.clear(flight)
            complete.append(flight)
        elif news or not numbers:
            association.resend(flight, now)
    return complete
