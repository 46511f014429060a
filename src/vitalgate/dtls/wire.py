"""Reading and writing the presentation language of TLS (RFC 8446 section 3): numbers and length-prefixed vectors."""

from vitalgate.dtls.alerts import Alert, HandshakeError


class DecodeError(HandshakeError):
    """The one error of every decoder of this room: bytes that are not what they should be."""

    def __init__(self, reason: str) -> None:
        super().__init__(Alert.DECODE_ERROR, reason)


class Reader:
    """Takes values off the front of ``data``; `DecodeError` where there are too few bytes, or some left at `end`."""

    __slots__ = ("data", "end_at", "offset")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self.data = data
        self.offset = offset
        self.end_at = len(data) if end is None else end

    def __len__(self) -> int:
        """Bytes left."""
        return self.end_at - self.offset

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        start = self.offset
        if self.end_at - start < size:
            raise DecodeError("truncated")
        self.offset = start + size
        return self.data[start : start + size]

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int, least: int = 0, most: int = 0xFFFFFF) -> bytes:
        """A vector with a length of ``prefix`` bytes, between ``least`` and ``most`` bytes long."""
        size = self.number(prefix)
        if not least <= size <= most:
            raise DecodeError(f"a vector of {size} bytes where {least} to {most} are allowed")
        return self.take(size)

    def sub(self, prefix: int, least: int = 0) -> "Reader":
        """A reader of the vector that comes next."""
        return Reader(self.vector(prefix, least))

    def numbers(self, prefix: int, size: int, least: int = 1) -> tuple[int, ...]:
        """A vector of at least ``least`` numbers of ``size`` bytes each."""
        data = self.vector(prefix, least * size)
        if len(data) % size:
            raise DecodeError("a vector that is no whole number of elements")
        return tuple(int.from_bytes(data[at : at + size], "big") for at in range(0, len(data), size))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self))

    def end(self) -> None:
        """Nothing may be left."""
        if self.offset != self.end_at:
            raise DecodeError("bytes after the end")


def vector(prefix: int, data: bytes) -> bytes:
    """``data`` behind its length in ``prefix`` bytes."""
    return len(data).to_bytes(prefix, "big") + data


def numbers(prefix: int, size: int, values: tuple[int, ...]) -> bytes:
    """A vector of numbers of ``size`` bytes each."""
    return vector(prefix, b"".join(value.to_bytes(size, "big") for value in values))
