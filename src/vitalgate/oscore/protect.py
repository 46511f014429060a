"""Protecting and verifying messages (RFC 8613 section 8): functions of a context, a message and a request's binding."""

from cryptography.exceptions import InvalidTag

from vitalgate.coap.message import Code, Message, Options, is_request, is_response
from vitalgate.coap.options import Option, sort_options, with_option
from vitalgate.oscore.classes import OUTER_ONLY
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal
from vitalgate.oscore.option import Header, decode, encode, partial_iv
from vitalgate.oscore.plaintext import Split, split
from vitalgate.oscore.plaintext import decode as decode_plaintext


class Binding:
    """What binds responses to one request (section 7.1), kept by both sides until no more responses come.

    ``number``: the request's sequence number. ``nonce``: the request's, good for one response. ``aad``: of the request
    and all its responses. ``observing``: the request asked to observe. ``nonce_used``: a response took ``nonce``.
    ``notification``: the highest Partial IV of a verified notification, -1 at first.
    """

    __slots__ = ("aad", "nonce", "nonce_used", "notification", "number", "observing")

    def __init__(self, number: int, nonce: bytes, aad: bytes, observing: bool) -> None:
        self.number = number
        self.nonce = nonce
        self.aad = aad
        self.observing = observing
        self.nonce_used = False
        self.notification = -1


def protect_request(context: SecurityContext, request: Message) -> tuple[Message, Binding]:
    """The OSCORE message for ``request`` (section 8.1) and what will verify its responses.

    Raises `ProtectionError` (`SequenceError` when no number can be had); nothing may be sent then."""
    parts = split(request)
    sender = context.sender
    _fits(context, parts.plaintext)
    number = context.sequence.next()
    piv = partial_iv(number)
    nonce, aad = sender.nonce(number), sender.aad(piv)
    header = encode(Header(piv, sender.kid, context.id_context if context.send_id_context else None))
    protected = Message(
        Code.POST if parts.observe is None else Code.FETCH,
        _outer(parts.outer, header),
        sender.key.encrypt(nonce, parts.plaintext, aad),
        request.type,
        request.mid,
        request.token,
    )
    # Observe: 0, an empty uint, asks to observe (RFC 7641 section 2).
    observing = parts.observe is not None and not int.from_bytes(parts.observe, "big")
    return protected, Binding(number, nonce, aad, observing)


def unprotect_request(context: SecurityContext, message: Message, header: Header) -> tuple[Message, Binding]:
    """The request inside ``message``, whose OSCORE option holds ``header`` (section 8.2 from step 3 on), and what its
    responses are bound to. Raises `OscoreError`: REPLAY, DECRYPTION or MALFORMED.

    Where the context has no window the request is *not* known to be fresh: `recovery.synchronise` decides."""
    piv, window, recipient = header.piv, context.window, context.recipient
    if not piv:
        raise OscoreError(Refusal.MALFORMED)
    number = int.from_bytes(piv, "big")
    if window is not None and not window.fresh(number):
        raise OscoreError(Refusal.REPLAY)
    nonce, aad = recipient.nonce(number), recipient.aad(piv)
    plaintext = _decrypt(context, nonce, message.payload, aad)
    if window is not None:
        window.mark(number)
    code, options, payload = decode_plaintext(plaintext)
    if not is_request(code):
        raise OscoreError(Refusal.MALFORMED)
    observing = False
    for option, value in options:
        if option == Option.OBSERVE:
            observing = not int.from_bytes(value, "big")
    request = Message(code, _merged(options, message.options), payload, message.type, message.mid, message.token)
    return request, Binding(number, nonce, aad, observing)


def protect_response(
    context: SecurityContext, binding: Binding, response: Message, *, own_piv: bool = False
) -> Message:
    """The OSCORE message for ``response`` to the bound request (section 8.3).

    The request's nonce serves one response; every other, and any with ``own_piv``, takes a sequence number of ours.
    A notification's Observe value is outside, inside it is empty (section 4.1.3.5.2).
    Raises `ProtectionError` (`SequenceError`); nothing may be sent then."""
    parts = split(response)
    if parts.observe:
        inside = Message(response.code, with_option(response.options, Option.OBSERVE, b""), response.payload)
        parts = Split(split(inside).plaintext, parts.outer, parts.observe)
    sender = context.sender
    _fits(context, parts.plaintext)
    if own_piv or binding.nonce_used:
        number = context.sequence.next()
        piv = partial_iv(number)
        nonce, header = sender.nonce(number), encode(Header(piv))
    else:
        binding.nonce_used = True
        nonce, header = binding.nonce, b""
    return Message(
        Code.CHANGED if parts.observe is None else Code.CONTENT,
        _outer(parts.outer, header),
        sender.key.encrypt(nonce, parts.plaintext, binding.aad),
        response.type,
        response.mid,
        response.token,
    )


def unprotect_response(context: SecurityContext, binding: Binding, message: Message) -> Message:
    """The response inside ``message`` to the bound request (section 8.4). Raises `OscoreError`; the response is to be
    ignored then, and an observation goes on.

    A notification's Observe value becomes the low 24 bits of its Partial IV (section 4.1.3.5.2); one that is not newer
    than those before is refused as a replay (section 7.4.1)."""
    value = message.option(Option.OSCORE)
    if value is None:
        raise OscoreError(Refusal.UNPROTECTED)
    piv, kid, kid_context = decode(value)
    # Neither belongs in a response (section 5), and neither is authenticated; one that names another key is no answer.
    if kid not in (None, context.recipient.kid) or kid_context not in (None, context.id_context):
        raise OscoreError(Refusal.NO_CONTEXT)
    number = int.from_bytes(piv, "big") if piv else -1
    if piv:
        nonce = context.recipient.nonce(number)
        if binding.observing and number <= binding.notification:
            raise OscoreError(Refusal.REPLAY)
    else:
        nonce = binding.nonce
        if binding.nonce_used:
            raise OscoreError(Refusal.REPLAY)
    plaintext = _decrypt(context, nonce, message.payload, binding.aad)
    code, options, payload = decode_plaintext(plaintext)
    if not is_response(code):
        raise OscoreError(Refusal.MALFORMED)
    if any(number == Option.OBSERVE for number, _ in options):
        if not binding.observing:
            raise OscoreError(Refusal.MALFORMED)
        order = (number & 0xFFFFFF).to_bytes(3, "big").lstrip(b"\0") if piv else b""
        options = tuple((n, order if n == Option.OBSERVE else v) for n, v in options)
    # Only what verified in full counts: a refused response must not use up the request's nonce.
    if piv:
        binding.notification = max(binding.notification, number)
    else:
        binding.nonce_used = True
    return Message(code, _merged(options, message.options), payload, message.type, message.mid, message.token)


def _fits(context: SecurityContext, plaintext: bytes) -> None:
    if len(plaintext) > context.aead.longest:
        raise ProtectionError("a message too long to be protected")


def _outer(outer: Options, header: bytes) -> Options:
    return sort_options((*outer, (Option.OSCORE, header))) if outer else ((Option.OSCORE, header),)


def _decrypt(context: SecurityContext, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    aead = context.aead
    if not ciphertext:
        raise OscoreError(Refusal.MALFORMED)  # section 2: an OSCORE option needs a payload
    if not aead.tag <= len(ciphertext) <= aead.longest + aead.tag:
        raise OscoreError(Refusal.DECRYPTION)
    try:
        return context.recipient.key.decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise OscoreError(Refusal.DECRYPTION) from None


def _merged(inner: Options, received: Options) -> Options:
    """The verified options with the outer ones that are class U only; every other outer option is discarded."""
    if len(received) == 1:
        return inner  # the OSCORE option alone
    outer = [option for option in received if option[0] in OUTER_ONLY and option[0] != Option.OSCORE]
    return sort_options((*inner, *outer)) if outer else inner
