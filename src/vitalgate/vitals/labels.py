"""SenML's labels in CBOR (RFC 8428 table 4)."""

from typing import Final

BVER: Final = -1
BN: Final = -2
BT: Final = -3
BU: Final = -4
BV: Final = -5
BS: Final = -6
N: Final = 0
U: Final = 1
V: Final = 2
VS: Final = 3
VB: Final = 4
S: Final = 5
T: Final = 6
UT: Final = 7
VD: Final = 8

BY_NAME: Final[dict[str, int]] = {
    "bver": BVER, "bn": BN, "bt": BT, "bu": BU, "bv": BV, "bs": BS,
    "n": N, "u": U, "v": V, "vs": VS, "vb": VB, "s": S, "t": T, "ut": UT, "vd": VD,
}  # fmt: skip
BY_NUMBER: Final[dict[int, str]] = {number: name for name, number in BY_NAME.items()}
