"""What a serial line is set to: facts about a device, so kept apart from the driver that opens ports."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LineSettings:
    """Baud rate, data bits, parity letter (N, E, O) and stop bits."""

    baud: int
    bits: int = 8
    parity: str = "N"
    stop: int = 1
