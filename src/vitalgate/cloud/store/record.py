"""What an entry's sealed content holds: its frame hash, then its observations as one CBOR array (RFC 8949).

``frame hash (16 bytes) | CBOR [version, defaults, [observation, ...]]``, or for a notice its kind and fields.
Observations of one frame share most of what they say, so each is stored as the difference from the first:
``[metric, unit, status, value]`` and, only where it differs from ``defaults``, a fifth element with the fields by
number. Decimals are text, which keeps every digit.
"""

from dataclasses import astuple
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import cbor2

from vitalgate.cloud.store.errors import StoreKeyError
from vitalgate.gateway.entry import NOTICE_HASH
from vitalgate.gateway.notice import Notice
from vitalgate.vitals.observation import (
    FRAME_HASH_BYTES,
    Alarm,
    Observation,
    Priority,
    SampleFormat,
    Samples,
    Status,
)

VERSION: Final = 1
_Defaults = tuple[float, str, float | None, float | None, str, str]


def _defaults(observation: Observation) -> _Defaults:
    return (
        observation.gateway_time,
        observation.decoder,
        observation.device_time,
        observation.clock_offset,
        observation.patient,
        observation.location,
    )


def _value(value: Decimal | Samples | str | None) -> object:
    if value is None:
        return None
    if isinstance(value, Samples):
        return [str(value.rate), value.format.value, value.data, str(value.factor), str(value.origin), value.missing]
    if isinstance(value, str):
        return [value]
    return str(value)


def encode(frame_hash: bytes, observations: tuple[Observation, ...]) -> bytes:
    """The content of an entry."""
    if not observations:
        return frame_hash + cbor2.dumps([VERSION, None, []])
    common = _defaults(observations[0])
    rows: list[list[object]] = []
    for observation in observations:
        row: list[object] = [
            observation.metric,
            observation.unit,
            int(observation.status),
            _value(observation.value),
        ]
        more: dict[int, object] = {}
        if observation.label:
            more[0] = observation.label
        alarm = observation.alarm
        if alarm is not None:
            more[1] = [alarm.text, int(alarm.priority)]
        if observation.frame_hash != frame_hash:
            more[2] = observation.frame_hash
        own = _defaults(observation)
        if own != common:
            more[3] = own
        if more:
            row.append(more)
        rows.append(row)
    return frame_hash + cbor2.dumps([VERSION, common, rows])


def encode_notice(notice: Notice) -> bytes:
    """The content of an entry that carries a notice."""
    return NOTICE_HASH + cbor2.dumps([VERSION, type(notice).__name__, astuple(notice)])


def frame_hash_of(content: bytes) -> bytes:
    """The frame hash alone."""
    return content[:FRAME_HASH_BYTES]


def _from_value(stored: Any) -> Decimal | Samples | str | None:
    if stored is None:
        return None
    if isinstance(stored, str):
        return Decimal(stored)
    if len(stored) == 1:
        return str(stored[0])
    rate, kind, data, factor, origin, missing = stored
    return Samples(Decimal(rate), SampleFormat(kind), data, Decimal(factor), Decimal(origin), missing)


def decode(content: bytes, device: str, epoch: int, sequence: int) -> tuple[Observation, ...]:
    """The observations of an entry. Raises `StoreKeyError` where the content is none that `encode` made."""
    frame_hash = content[:FRAME_HASH_BYTES]
    try:
        version, common, rows = cbor2.loads(content[FRAME_HASH_BYTES:])
        if version != VERSION:
            raise StoreKeyError(f"an entry of a later form ({version})")
        if isinstance(common, str):  # a notice: `gaps` and `quarantine` hold what it says
            return ()
        found: list[Observation] = []
        for metric, unit, status, value, *rest in rows:
            more: dict[int, Any] = rest[0] if rest else {}
            alarm = more.get(1)
            time, decoder, device_time, offset, patient, location = more.get(3, common)
            found.append(
                Observation(
                    metric=metric,
                    value=_from_value(value),
                    unit=unit,
                    gateway_time=time,
                    frame_hash=more.get(2, frame_hash),
                    decoder=decoder,
                    status=Status(status),
                    device_time=device_time,
                    clock_offset=offset,
                    label=more.get(0, ""),
                    alarm=Alarm(alarm[0], Priority(alarm[1])) if alarm is not None else None,
                    patient=patient,
                    location=location,
                    device=device,
                    epoch=epoch,
                    sequence=sequence,
                )
            )
    except (ValueError, TypeError, KeyError, InvalidOperation, cbor2.CBORDecodeError) as error:
        raise StoreKeyError("an entry's content is damaged") from error
    return tuple(found)
