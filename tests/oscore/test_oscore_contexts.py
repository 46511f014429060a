"""Contexts come, overlap and go while the endpoint runs."""

import pytest

from vitalgate.oscore.context import ContextError, Parameters, SecurityContext
from vitalgate.oscore.contexts import SAME_ID, Contexts
from vitalgate.oscore.option import Header
from vitalgate.oscore.sequence import MemorySequenceStore


def made(name="gateway", secret=b"s", kid=b"g", id_context=None):
    return SecurityContext(name, Parameters(secret, b"", kid, id_context=id_context), MemorySequenceStore(), fresh=True)


def test_found_by_kid_and_kid_context():
    contexts = Contexts()
    plain, site, other = made(), made("a", id_context=b"site"), made("b", kid=b"h")
    for context in (plain, site, other):
        contexts.add(context)
    assert contexts.find(Header(b"\0", b"g")) == (plain,)
    assert contexts.find(Header(b"\0", b"g", b"site")) == (site,)
    assert contexts.find(Header(b"\0", b"h")) == (other,)
    for header in (Header(b"\0"), Header(b"\0", b""), Header(b"\0", b"g", b""), Header(b"\0", b"h", b"site")):
        assert contexts.find(header) == ()


def test_rotation_overlaps_and_ends():
    contexts = Contexts()
    old, new = made(secret=b"old"), made(secret=b"new")
    contexts.add(old, path="p")
    contexts.add(new)
    assert contexts.named("gateway") is new
    contexts.retire(old, until=60.0)
    assert contexts.find(Header(b"\0", b"g")) == (new, old)
    assert contexts.towards("p") is new
    assert contexts.next_timeout() == 60.0
    assert contexts.handle_timeout(59.9) == 0
    assert old in contexts
    assert contexts.handle_timeout(60.0) == 1
    assert contexts.find(Header(b"\0", b"g")) == (new,)
    assert old not in contexts
    assert contexts.next_timeout() is None


def test_a_name_whose_contexts_are_all_retired_sends_nothing():
    contexts = Contexts()
    old = made()
    contexts.add(old, path="p")
    contexts.retire(old, until=60.0)
    assert contexts.named("gateway") is None
    assert contexts.towards("p") is None
    assert contexts.find(Header(b"\0", b"g")) == (old,)


def test_revocation_takes_everything_of_a_name():
    contexts = Contexts()
    first, second, other = made(), made(secret=b"t"), made("other", kid=b"o")
    contexts.add(first, path="p")
    contexts.add(second)
    contexts.add(other, path="q")
    contexts.retire(first, until=9.0)
    assert contexts.revoke("gateway") == 2
    assert contexts.revoke("gateway") == 0
    assert len(contexts) == 1
    assert contexts.find(Header(b"\0", b"g")) == ()
    assert contexts.named("gateway") is None
    assert contexts.towards("p") is None
    assert contexts.towards("q") is other
    assert contexts.next_timeout() is None
    contexts.remove(first)
    assert len(contexts) == 1


def test_a_name_that_comes_back_is_not_bound_to_its_old_path():
    contexts = Contexts()
    contexts.add(made(), path="p")
    contexts.revoke("gateway")
    contexts.add(made())
    assert contexts.towards("p") is None


def test_every_table_is_bounded():
    contexts = Contexts(limit=5)
    for n in range(SAME_ID):
        contexts.add(made(secret=bytes((n + 1,))))
    with pytest.raises(ContextError, match="Recipient ID"):
        contexts.add(made(secret=b"x"))
    contexts.add(made("other", kid=b"h"))
    with pytest.raises(ContextError, match="no more"):
        contexts.add(made("third", kid=b"i"))
    for n in range(5):
        contexts.bind(n, "gateway")
    contexts.bind(4, "other")
    with pytest.raises(ContextError, match="paths"):
        contexts.bind(5, "gateway")


def test_a_context_is_added_once_and_only_those_in_service_retire():
    contexts = Contexts()
    context = made()
    contexts.retire(context, until=1.0)
    assert contexts.next_timeout() is None
    contexts.add(context)
    with pytest.raises(ContextError, match="already"):
        contexts.add(context)
