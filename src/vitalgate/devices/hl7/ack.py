"""Acknowledgements (HL7 v2 chapter 2.9): what is answered, in the original and in the enhanced mode."""

from dataclasses import dataclass
from typing import Final

from vitalgate.devices.contract import Outcome
from vitalgate.devices.hl7.er7 import Message, escape, time_text

APPLICATION: Final = "VITALGATE"
MAX_ECHO: Final = 199
"""Characters of a message's number that are echoed: the longest that HL7 v2.7 allows."""

_CONDITIONS: Final[dict[str, tuple[bool, bool]]] = {
    "": (False, False),
    "AL": (True, True),
    "NE": (False, False),
    "ER": (False, True),
    "SU": (True, False),
}
_ALWAYS: Final = (True, True)
"""MSH-15, MSH-16 (HL7 table 0155): whether to answer when it went well, and when not. A word that is none: always,
since a device that waits for an answer in vain sends nothing more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One acknowledgement to be: its letter ('A' accepted, 'E' error, 'R' rejected), text, and code of table 0357."""

    letter: str
    text: str = ""
    code: int = 0


ANSWERS: Final[dict[Outcome, Answer]] = {
    Outcome.COMMITTED: Answer("A"),
    Outcome.FULL: Answer("E", "cannot be stored now: send it again later", 207),
    Outcome.REFUSED: Answer("R", "not taken: this device is not enrolled here, or its message cannot be carried", 207),
}


@dataclass(frozen=True, slots=True)
class Correspondent:
    """What of a message its acknowledgements repeat."""

    application: str = ""
    facility: str = ""
    event: str = ""
    control_id: str = ""
    processing: str = "P"
    version: str = "2.6"
    charset: str = ""
    codec: str = "utf-8"
    accept: str = ""
    respond: str = ""


def correspondent(message: Message | None) -> Correspondent:
    """Take from a message's header what acknowledgements need; from none, what they say where nothing is known."""
    if message is None:
        return Correspondent()
    header = message.header

    def field(number: int, most: int) -> str:
        """A field in our delimiters: components taken apart, each escaped anew."""
        parts = header.components(number)
        text = "^".join(escape(part) for part in parts)
        return text if len(text) <= most else ""

    return Correspondent(
        field(3, 256),
        field(4, 256),
        _word(header.text(9, 2)),
        header.text(10)[:MAX_ECHO],
        _word(header.text(11)) or "P",
        _word(header.text(12)) or "2.6",
        escape(header.text(18)[:32]),
        message.charset,
        header.text(15).strip().upper(),
        header.text(16).strip().upper(),
    )


def _word(text: str) -> str:
    return text if len(text) <= 8 and all(one.isalnum() or one == "." for one in text) else ""


def acknowledgements(to: Correspondent, answer: Answer, at: float, number: str) -> list[tuple[str, bytes]]:
    """The messages that answer ``to``, each with its code (MSA-1): none, one or two.

    ``at`` is the wall time, ``number`` our own for MSH-10.

    Original mode (MSH-15 and MSH-16 empty): one of AA, AE, AR. Enhanced mode: a commit acknowledgement as MSH-15 asks
    and an application acknowledgement as MSH-16 asks, both once the message is durable: then both are true.
    """
    good = answer.letter == "A"
    if not to.accept and not to.respond:
        code = "A" + answer.letter
        return [(code, _message(to, code, answer, at, number))]
    codes = []
    if _CONDITIONS.get(to.accept, _ALWAYS)[not good]:
        codes.append("C" + answer.letter)
    if _CONDITIONS.get(to.respond, _ALWAYS)[not good]:
        codes.append("A" + answer.letter)
    return [
        (code, _message(to, code, answer, at, f"{number}.{position}" if position else number))
        for position, code in enumerate(codes)
    ]


def _message(to: Correspondent, code: str, answer: Answer, at: float, number: str) -> bytes:
    kind = f"ACK^{to.event}^ACK" if to.event else "ACK"
    header = [
        "MSH", "^~\\&", APPLICATION, "", to.application, to.facility, time_text(at), "", kind, number, to.processing,
        to.version,
    ]  # fmt: skip
    if to.charset:
        header += ["", "", "", "", "", to.charset]
    segments = ["|".join(header), "|".join(("MSA", code, escape(to.control_id), escape(answer.text))).rstrip("|")]
    if answer.code:
        segments.append(f"ERR|||{answer.code}^{_CODE_TEXTS[answer.code]}^HL70357|E||||{escape(answer.text)}")
    return "".join(segment + "\r" for segment in segments).encode(to.codec, "replace")


_CODE_TEXTS: Final[dict[int, str]] = {
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    207: "Application internal error",
}
"""HL7 table 0357."""
