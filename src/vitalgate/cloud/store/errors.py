"""What the store says when it cannot do what it was asked."""

import enum


class Reason(enum.Enum):
    """Why the store cannot write now; the slug is the label of the counter ``cloud_store_unavailable``."""

    FULL = "full"
    LOCKED = "locked"
    READ_ONLY = "read_only"
    IO = "io"
    DAMAGED = "damaged"


class StoreError(Exception):
    """The base of the store's errors; the text is for people and holds no clinical value and no secret."""


class StoreUnavailable(StoreError):
    """Nothing of the transaction was made durable; it may be tried again later."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the store cannot be written now ({reason.value})")
        self.reason = reason


class StoreVersionError(StoreError):
    """The database was made by another version of this program, which this one cannot use."""


class StoreKeyError(StoreError):
    """The data key is not the one this store was made with, or sealed content was altered."""
