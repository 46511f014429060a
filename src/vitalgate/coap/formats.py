"""Content-Formats (RFC 7252 section 12.3 and the IANA registry): the ones this project meets."""

import enum


class ContentFormat(enum.IntEnum):
    """Numbers of media types in Content-Format and Accept options."""

    TEXT = 0
    COSE_ENCRYPT0 = 16
    LINK_FORMAT = 40
    XML = 41
    OCTET_STREAM = 42
    EXI = 47
    JSON = 50
    JSON_PATCH = 51
    MERGE_PATCH = 52
    CBOR = 60
    CWT = 61
    CBOR_SEQUENCE = 63
    EDHOC_CBOR_SEQUENCE = 64
    CID_EDHOC_CBOR_SEQUENCE = 65
    COSE_KEY = 101
    COSE_KEY_SET = 102
    SENML_JSON = 110
    SENSML_JSON = 111
    SENML_CBOR = 112
    SENSML_CBOR = 113
    CONCISE_PROBLEM_DETAILS = 257
    OSCORE = 10001


MEDIA_TYPES: dict[int, str] = {
    ContentFormat.TEXT: "text/plain;charset=utf-8",
    ContentFormat.COSE_ENCRYPT0: 'application/cose;cose-type="cose-encrypt0"',
    ContentFormat.LINK_FORMAT: "application/link-format",
    ContentFormat.XML: "application/xml",
    ContentFormat.OCTET_STREAM: "application/octet-stream",
    ContentFormat.EXI: "application/exi",
    ContentFormat.JSON: "application/json",
    ContentFormat.JSON_PATCH: "application/json-patch+json",
    ContentFormat.MERGE_PATCH: "application/merge-patch+json",
    ContentFormat.CBOR: "application/cbor",
    ContentFormat.CWT: "application/cwt",
    ContentFormat.CBOR_SEQUENCE: "application/cbor-seq",
    ContentFormat.EDHOC_CBOR_SEQUENCE: "application/edhoc+cbor-seq",
    ContentFormat.CID_EDHOC_CBOR_SEQUENCE: "application/cid-edhoc+cbor-seq",
    ContentFormat.COSE_KEY: "application/cose-key",
    ContentFormat.COSE_KEY_SET: "application/cose-key-set",
    ContentFormat.SENML_JSON: "application/senml+json",
    ContentFormat.SENSML_JSON: "application/sensml+json",
    ContentFormat.SENML_CBOR: "application/senml+cbor",
    ContentFormat.SENSML_CBOR: "application/sensml+cbor",
    ContentFormat.CONCISE_PROBLEM_DETAILS: "application/concise-problem-details+cbor",
    ContentFormat.OSCORE: "application/oscore",
}


def media_type(number: int) -> str:
    """The media type of Content-Format ``number``, or its number where it is not in the table."""
    return MEDIA_TYPES.get(number, str(number))
