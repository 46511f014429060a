"""The delivery format: entries as SenML-CBOR, what the uplink POSTs to ``/ingest`` (Content-Format 112, RFC 8428).

A payload is one SenML pack holding whole entries one after another. An entry begins with the record that has ``bgs``,
its sequence; each record with a name is one observation, or the entry's notice. A reader that knows SenML alone finds
name, unit, value and time; the rest is in extension labels, which it may ignore.

========= ===================================================== =========================================
Label     Base fields, from their record to the entry's end     When absent from an entry
========= ===================================================== =========================================
``bn``    device URN and ':', or 'vitalgate:' (the gateway)     always there
``bt``    the frame's time, seconds since 1970                  always there
``bge``   epoch                                                 always there
``bgs``   sequence; begins an entry                             always there
``bgc``   traffic class                                         always there
``bgh``   frame hash, 16 bytes                                  always there
``bgd``   decoder                                               ''
``bgx``   status, as a number                                   0
``bgt``   device time, or false for none                        none
``bgo``   clock offset, or false for none                       device time minus the record's time
``bgp``   patient                                               ''
``bgl``   location                                              ''
========= ===================================================== =========================================

========= ===================================================== =========================================
Label     Fields of one record                                  When absent
========= ===================================================== =========================================
``n``     metric, and '/' and the observation's label if plain  no observation in this record
``u``     SenML unit of ``v``                                   the registry has none for it
``v``     the value in ``u`` (or where that is absent ``gu``)   the value is of another kind
``vs``    the value, a text                                     the value is of another kind
``vd``    the samples of a waveform                             the value is of another kind
``vb``    false: the device said "no value"                     there is a value
``t``     the observation's time, from ``bt``                   0
``gu``    the unit as observed (UCUM)                           ``u`` is it, or there is none
``gv``    the value as observed                                 ``v`` is it
``gl``    the observation's label                               the part of ``n`` behind '/'
``gh``    frame hash                                            ``bgh``
``ga``    alarm text, with ``gp`` its priority                  no alarm
``gr``    samples: rate                                         (with ``vd`` always there)
``gf``    samples: 'h' for 16-bit words                         unsigned bytes
``gx``    samples: factor                                       1
``go``    samples: origin                                       0
``gm``    samples: the raw value for "no signal"                there is none
========= ===================================================== =========================================

A notice is a record named ``notice`` whose ``vs`` says its kind; `vitalgate.gateway.noticeform` has its labels.
Times are absolute even where a gateway's clock is lost in the 1970s (RFC 8428 section 4.5.3 would call them relative).
"""

from collections.abc import Iterable, Sequence
from decimal import InvalidOperation
from typing import Any, Final

import cbor2

from vitalgate.coap.formats import ContentFormat
from vitalgate.gateway.deliverycommon import DeliveryError, is_time
from vitalgate.gateway.deliveryreader import GATEWAY_NAME, Reader
from vitalgate.gateway.deliverywriter import Writer, base_fields, encoded, map_of
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.noticeform import NOTICE_LABELS, notice_record
from vitalgate.vitals import strictcbor
from vitalgate.vitals.labels import BN, BT, BVER, VB, VD, VS, N, T, U, V
from vitalgate.vitals.observation import FRAME_HASH_BYTES
from vitalgate.vitals.urn import is_normal

__all__ = [
    "CONTENT_FORMAT",
    "MAX_PACKED_BYTES",
    "MAX_PAYLOAD_BYTES",
    "DeliveryError",
    "join",
    "pack",
    "pack_entry",
    "unpack",
]

CONTENT_FORMAT: Final = ContentFormat.SENML_CBOR
"""application/senml+cbor (RFC 8428 section 12.3.1)."""
MAX_PACKED_BYTES: Final = 8192
"""Largest entry that is packed at all; `vitalgate.gateway.splitting` keeps them far below."""
MAX_PAYLOAD_BYTES: Final = 16384
MAX_RECORDS: Final = 2048
_MAX_DEPTH: Final = 5

_HEADER: Final = frozenset({"bge", "bgs", "bgc", "bgh", BT, BN, BVER})
_KNOWN: Final = frozenset(
    {BVER, BN, BT, N, U, V, VS, VB, VD, T}
    | {"bge", "bgs", "bgc", "bgh", "bgd", "bgx", "bgt", "bgo", "bgp", "bgl"}
    | {"gu", "gv", "gl", "gh", "ga", "gp", "gr", "gf", "gx", "go", "gm"}
    | NOTICE_LABELS
)


# packing


def pack(entries: Iterable[Entry]) -> bytes:
    """The payload that holds ``entries`` in order; raises `DeliveryError`."""
    return join([pack_entry(entry) for entry in entries])


def pack_entry(entry: Entry) -> bytes:
    """One entry as a SenML pack of its own; `join` makes payloads of these. Raises `DeliveryError`.

    An observation's device, epoch and sequence are those of its entry: where it has other ones it does not belong.
    """
    if not is_time(entry.gateway_time):
        raise DeliveryError("the entry's time is no number")
    if len(entry.frame_hash) != FRAME_HASH_BYTES or not (0 <= entry.epoch < 1 << 64 and 0 < entry.sequence < 1 << 63):
        raise DeliveryError("the entry's frame hash, epoch or sequence is out of bounds")
    if entry.device and not is_normal(entry.device):
        raise DeliveryError("the entry's device has no URN in normal spelling (RFC 9039)")
    try:
        begun = base_fields(entry, f"{entry.device}:" if entry.device else GATEWAY_NAME)
        if entry.notice is not None:
            if entry.observations:
                raise DeliveryError("an entry holds observations or a notice")
            packed = _head(1) + map_of(begun, encoded(notice_record(entry.notice)))
        elif entry.observations:
            if not entry.device:
                raise DeliveryError("an observation of no device")
            first, *others = entry.observations
            writer = Writer(entry)
            records = [writer.write(first, begun)]
            records += map(writer.write, others)
            packed = _head(len(records)) + b"".join(records)
        else:
            packed = _head(1) + map_of(begun)
    except (cbor2.CBOREncodeError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DeliveryError):
            raise
        raise DeliveryError("the entry holds something that cannot be carried") from error
    if len(packed) > MAX_PACKED_BYTES:
        raise DeliveryError(f"the entry is longer than {MAX_PACKED_BYTES} bytes")
    return packed


def join(packed: Sequence[bytes]) -> bytes:
    """One payload of packed entries: never longer than they are together. Raises `DeliveryError` for other bytes."""
    if len(packed) == 1:
        return packed[0]
    count, bodies = 0, []
    for one in packed:
        records, size = _array_head(one)
        count += records
        bodies.append(one[size:])
    return b"".join((_head(count), *bodies))


def _head(count: int) -> bytes:
    """The head of an array of ``count`` records."""
    if not 0 < count < 65536:
        raise DeliveryError("a delivery holds 1 to 65535 records")
    if count < 24:
        return bytes([0x80 | count])
    return bytes([0x98, count]) if count < 256 else bytes([0x99, count >> 8, count & 255])


def _array_head(packed: bytes) -> tuple[int, int]:
    """How many elements the array ``packed`` has, and the length of its head (RFC 8949 section 3)."""
    first = packed[0] if packed else 0
    if 0x80 <= first < 0x98:
        return first & 31, 1
    if first == 0x98 and len(packed) > 1:
        return packed[1], 2
    if first == 0x99 and len(packed) > 2:
        return int.from_bytes(packed[1:3], "big"), 3
    raise DeliveryError("not a packed entry")


# unpacking


def unpack(payload: bytes) -> list[Entry]:
    """The entries of a payload, in order. Raises `DeliveryError` for anything else, and takes bounded time for it."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise DeliveryError(f"a delivery has at most {MAX_PAYLOAD_BYTES} bytes")
    try:
        records = strictcbor.loads(payload, max_depth=_MAX_DEPTH)
    except strictcbor.CborError as error:
        raise DeliveryError("not CBOR, or not of a delivery's shape") from error
    if type(records) is not list or not 0 < len(records) <= MAX_RECORDS:
        raise DeliveryError(f"a delivery is an array of 1 to {MAX_RECORDS} records")
    entries: list[Entry] = []
    reader: Reader | None = None
    try:
        for record in records:
            if type(record) is not dict:
                raise DeliveryError("a record is a map")
            if not record.keys() <= _KNOWN:
                _refuse_must_understand(record)
            if "bgs" in record:
                if reader is not None:
                    entries.append(reader.entry())
                reader = Reader(record)
            elif reader is None or not _HEADER.isdisjoint(record):
                raise DeliveryError("base fields of an entry without its beginning")
            reader.read(record)
        if reader is not None:
            entries.append(reader.entry())
    except (KeyError, TypeError, InvalidOperation, OverflowError) as error:
        raise DeliveryError("a record lacks a field or has one of another kind") from error
    return entries


def _refuse_must_understand(record: dict[Any, Any]) -> None:
    """RFC 8428 section 4.4: unknown labels are ignored, except those that end with '_'."""
    for label in record.keys() - _KNOWN:
        if isinstance(label, str):
            if label.endswith("_"):
                raise DeliveryError("a label that must be understood is not")
        elif type(label) is not int:
            raise DeliveryError("a label is a number or a text")
