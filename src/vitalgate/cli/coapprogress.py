"""How far a block-wise transfer is, on standard error."""

import sys

from vitalgate.cli.output import note
from vitalgate.coap.events import TransferProgressed


class ProgressLine:
    """A line that is written over and over on a terminal; elsewhere lines of their own, and only where ``verbose``."""

    def __init__(self, *, verbose: bool) -> None:
        self._terminal = sys.stderr.isatty()
        self._verbose = verbose
        self._shown = False

    def __call__(self, event: TransferProgressed) -> None:
        """Show where ``event`` says the transfer is."""
        text = progress_text(event)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = True
        elif self._verbose:
            note(text)

    def clear(self) -> None:
        """Make room for what comes next on the terminal."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def progress_text(event: TransferProgressed) -> str:
    """The state of a transfer in words."""
    if not event.received:
        return f"sent {event.sent} of {event.to_send} bytes"
    if event.to_receive is None:
        return f"received {event.received} bytes"
    return f"received {event.received} of {event.to_receive} bytes"
