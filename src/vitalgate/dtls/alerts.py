"""Alerts (RFC 8446 section 6, RFC 5246 section 7.2) and the error by which a handshake says that it cannot go on."""

import enum


class Alert(enum.IntEnum):
    """AlertDescription: the registry's values that DTLS 1.2 and 1.3 use."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    TOO_MANY_CIDS_REQUESTED = 52
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


WARNING = 1
FATAL = 2

NOT_FATAL = frozenset((Alert.CLOSE_NOTIFY, Alert.USER_CANCELED, Alert.NO_RENEGOTIATION))
"""Everything else ends the association, whatever level it was sent with (RFC 8446 section 6)."""


def encode(alert: Alert) -> bytes:
    """An alert message (2 bytes)."""
    return bytes((WARNING if alert in NOT_FATAL else FATAL, alert))


def name(value: int) -> str:
    """The alert's name as a counter label; all values outside the registry share one."""
    try:
        return Alert(value).name.lower().replace("_", "-")
    except ValueError:
        return "unregistered"


class HandshakeError(Exception):
    """A handshake cannot go on: the alert that says so, and the reason in our words. It does not leave the engine."""

    def __init__(self, alert: Alert, reason: str) -> None:
        super().__init__(reason)
        self.alert = alert
        self.reason = reason
