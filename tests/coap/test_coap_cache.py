"""The response cache, rule by rule of RFC 7252 section 5.6; time is given by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.coap.cache import ENTRY_COST, CacheLimits, ResponseCache, cache_key
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, encode_uint, sort_options, uint_option

ORIGIN = ("coap", "sensor.example", 5683)
ETAG = (int(Option.ETAG), b"\x01\x02")


def get(path="t", *more, code=Code.GET, payload=b""):
    return Message(code, sort_options([*build_options(path), *more]), payload)


def content(payload=b"21.5", *more, max_age=None, code=Code.CONTENT):
    return Message(code, build_options(content_format=0, max_age=max_age, more=more), payload)


class Asked:
    """A client's view of a cache before one origin server."""

    def __init__(self, **limits):
        self.cache = ResponseCache(CacheLimits(**limits))
        self.now = 100.0

    def key(self, request):
        return cache_key(request, ORIGIN)

    def look(self, request):
        return self.cache.answer(self.key(request), request, self.now)

    def learn(self, request, response, *, took=0.0, **more):
        key = self.key(request)
        more.setdefault("validated", self.cache.validator(key))
        self.now += took
        return self.cache.take(key, request, response, asked_at=self.now - took, now=self.now, **more)


def test_a_response_is_used_while_it_is_fresh_and_its_max_age_shrinks():
    asked = Asked()
    assert asked.look(get()) is None
    asked.learn(get(), content(max_age=30))
    asked.now += 10.5
    answer = asked.look(get())
    assert answer.payload == b"21.5"
    assert uint_option(answer, Option.MAX_AGE) == 19, "rounded down: Max-Age must not extend what the server said"
    assert uint_option(answer, Option.CONTENT_FORMAT) == 0
    asked.now += 19.5
    assert asked.look(get()) is None


def test_without_max_age_it_is_fresh_for_a_minute():
    asked = Asked()
    asked.learn(get(), content())
    asked.now += 59.0
    assert uint_option(asked.look(get()), Option.MAX_AGE) == 1
    asked.now += 1.0
    assert asked.look(get()) is None


def test_the_time_a_response_was_under_way_counts_as_age():
    asked = Asked()
    asked.learn(get(), content(max_age=10), took=4.0)
    assert uint_option(asked.look(get()), Option.MAX_AGE) == 6


def test_max_age_zero_is_never_answered_from_the_cache():
    asked = Asked()
    asked.learn(get(), content(b"x", max_age=0))
    assert asked.look(get()) is None
    assert len(asked.cache) == 0
    asked.learn(get(), content(b"x", ETAG, max_age=0))
    assert asked.look(get()) is None
    assert asked.cache.validator(asked.key(get())).etag == ETAG[1], "but it can be validated"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (get("t", (Option.URI_QUERY, b"a")), False),
        (get("u"), False),
        (get("t", (Option.URI_HOST, b"h")), False),
        (get("t", (Option.ACCEPT, b"\x32")), False),
        (get("t", (2048, b"x")), False),  # unknown, elective, safe, and part of the key
        (get("t", (0x801C, b"x")), True),  # unknown, elective, safe, NoCacheKey
        (get("t", (Option.SIZE1, b"\x01")), True),
        (get("t", (Option.ECHO, b"x")), True),
        (get("t", ETAG), True),
        (get("t", (Option.HOP_LIMIT, b"\x07")), True),
        (get("t", (Option.BLOCK2, b"\x06")), True),
        (get("t", code=Code.FETCH), False),
    ],
)
def test_the_cache_key(other, same):
    assert (cache_key(get(), ORIGIN) == cache_key(other, ORIGIN)) is same
    assert cache_key(other, ORIGIN) != cache_key(other, ("coap", "other.example", 5683))


def test_fetch_is_answered_by_its_question():
    asked = Asked()

    def ask(question):
        return get("t", (Option.CONTENT_FORMAT, b"\x3c"), code=Code.FETCH, payload=question)

    asked.learn(ask(b"a"), content(b"A"))
    assert asked.look(ask(b"a")).payload == b"A"
    assert asked.look(ask(b"b")) is None


@pytest.mark.parametrize(
    ("code", "stored"),
    [
        (Code.CONTENT, True),
        (Code.BAD_REQUEST, True),
        (Code.NOT_FOUND, True),
        (Code.SERVICE_UNAVAILABLE, True),
        (0x5E, False),  # 2.30: a success that nobody knows
        (Code.CREATED, False),
        (Code.CHANGED, False),
        (Code.UNAUTHORIZED, False),
        (Code.TOO_MANY_REQUESTS, False),
        (Code.REQUEST_ENTITY_TOO_LARGE, False),
        (Code.HOP_LIMIT_REACHED, False),
    ],
)
def test_what_is_stored_depends_on_the_response_code(code, stored):
    asked = Asked()
    asked.learn(get(), content(code=code))
    assert (asked.look(get()) is not None) is stored


@pytest.mark.parametrize("code", [Code.POST, Code.PUT, Code.DELETE, Code.PATCH, Code.IPATCH])
def test_a_change_makes_what_is_stored_of_the_resource_stale(code):
    asked = Asked()
    asked.learn(get(), content(b"old", ETAG))
    asked.learn(get("t", (Option.ACCEPT, b"\x3c")), content(b"old too"))
    asked.learn(get("u"), content(b"another"))
    asked.learn(get(code=code), content(b"", code=Code.BAD_REQUEST))
    assert asked.look(get()) is not None, "an error changed nothing"
    asked.learn(get(code=code), content(b"", code=Code.CHANGED))
    assert asked.look(get()) is None
    assert asked.look(get("t", (Option.ACCEPT, b"\x3c"))) is None
    assert asked.look(get("u")).payload == b"another"
    assert asked.cache.validator(asked.key(get())) is not None, "stale, yet it may turn out to be valid"


def test_what_was_created_elsewhere_is_stale_there():
    asked = Asked()
    for path, query in (("made/1", b"v=2"), ("made/1", b"v=3")):
        asked.learn(get(path, (Option.URI_QUERY, query)), content(b"before"))
    location = ((Option.LOCATION_PATH, b"made"), (Option.LOCATION_PATH, b"1"), (Option.LOCATION_QUERY, b"v=2"))
    asked.learn(get("t", code=Code.POST), Message(Code.CREATED, location))
    assert asked.look(get("made/1", (Option.URI_QUERY, b"v=2"))) is None
    assert asked.look(get("made/1", (Option.URI_QUERY, b"v=3"))) is not None


def test_a_client_that_has_the_representation_is_told_so():
    asked = Asked()
    asked.learn(get(), content(b"body", ETAG, max_age=20))
    asked.now += 5
    answer = asked.look(get("t", (Option.ETAG, b"\xff"), ETAG))
    assert (answer.code, answer.payload) == (Code.VALID, b"")
    assert answer.options == (ETAG, (Option.MAX_AGE, b"\x0f"))
    assert asked.look(get("t", (Option.ETAG, b"\xff"))).code == Code.CONTENT


def test_validation_makes_it_fresh_again_and_replaces_safe_options():
    asked = Asked()
    safe = 2048
    asked.learn(get(), content(b"body", ETAG, (safe, b"one"), (safe, b"two"), max_age=1))
    asked.now += 5
    assert asked.look(get()) is None
    valid = Message(Code.VALID, (ETAG, (Option.MAX_AGE, b"\x28"), (safe, b"three")))
    answer = asked.learn(get(), valid)
    assert (answer.code, answer.payload) == (Code.CONTENT, b"body")
    assert answer.all(safe) == [b"three"]
    assert uint_option(answer, Option.CONTENT_FORMAT) == 0
    asked.now += 39
    assert asked.look(get()).payload == b"body"
    asked.now += 2
    answer = asked.learn(get("t", ETAG), valid)
    assert answer.code == Code.VALID, "the client has that one itself"


def test_a_valid_for_what_the_client_alone_has_is_passed_on():
    asked = Asked()
    theirs = (int(Option.ETAG), b"theirs")
    asked.learn(get(), content(b"ours", ETAG, max_age=0))
    answer = asked.learn(get("t", theirs), Message(Code.VALID, (theirs,)))
    assert answer.code == Code.VALID
    assert asked.learn(get(), Message(Code.VALID, (theirs,))) is None, "nobody was asked about that"
    assert asked.learn(get(), Message(Code.VALID)) is None, "2.03 must have an ETag"


def test_an_answer_overtaken_by_a_change_is_not_fresh():
    asked = Asked()
    answer = asked.learn(get(), content(b"before the change", ETAG), outdated=True)
    assert answer.payload == b"before the change"
    assert asked.look(get()) is None


def test_the_evicted_can_still_be_validated_by_who_asked_for_it():
    asked = Asked(cache_entries=1)
    asked.learn(get(), content(b"body", ETAG, max_age=0))
    validated = asked.cache.validator(asked.key(get()))
    asked.learn(get("u"), content())
    assert asked.cache.validator(asked.key(get())) is None
    answer = asked.learn(get(), Message(Code.VALID, (ETAG,)), validated=validated)
    assert answer.payload == b"body"


def test_full_of_entries_the_least_used_goes():
    asked = Asked(cache_entries=3)
    for name in "abc":
        asked.learn(get(name), content())
    asked.look(get("a"))
    asked.learn(get("d"), content())
    assert [name for name in "abcd" if asked.look(get(name))] == ["a", "c", "d"]
    assert asked.cache.counters["coap_limit_reached{cache_entries}"] == 1


def test_full_of_bytes_the_least_used_go():
    asked = Asked(cache_bytes=3 * (ENTRY_COST + 1200))
    for name in "abc":
        asked.learn(get(name), content(bytes(1000)))
    assert len(asked.cache) == 3
    asked.learn(get("d"), content(bytes(2500)))
    assert [name for name in "abcd" if asked.look(get(name))] == ["c", "d"]
    assert asked.cache.counters["coap_limit_reached{cache_bytes}"] == 2


def test_what_is_too_large_is_passed_on_and_not_stored():
    asked = Asked(cache_entry_bytes=2000)
    asked.learn(get(), content(b"small"))
    asked.now += 61
    assert asked.learn(get(), content(bytes(2000))).payload == bytes(2000)
    assert asked.look(get()) is None
    assert len(asked.cache) == 0, "nor is what it replaces"
    assert asked.cache.counters["coap_limit_reached{cache_entry_bytes}"] == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Code.GET, Code.FETCH, Code.PUT, Code.DELETE]),
            st.sampled_from("abcde"),
            st.binary(max_size=40),
            st.sampled_from([Code.CONTENT, Code.VALID, Code.NOT_FOUND, Code.CHANGED, Code.CREATED]),
            st.one_of(st.none(), st.binary(min_size=1, max_size=8)),
            st.integers(0, 90),
            st.floats(0, 50),
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_account_is_right_and_nothing_stale_is_used(steps):
    asked = Asked(cache_entries=4, cache_bytes=4 * (ENTRY_COST + 100))
    for code, name, payload, answer, etag, age, wait in steps:
        asked.now += wait
        request = get(name, code=code, payload=payload)
        more = [] if etag is None else [(Option.ETAG, etag)]
        found = asked.look(request) if code in (Code.GET, Code.FETCH) else None
        if found is not None:
            assert asked.cache._stored[asked.key(request)].expires > asked.now
            assert uint_option(found, Option.MAX_AGE) <= 90
            continue
        asked.learn(request, Message(answer, build_options(max_age=age, more=more), payload))
        stored = asked.cache._stored
        assert asked.cache.size == sum(each.size for each in stored.values()) <= asked.cache.limits.cache_bytes
        assert len(stored) <= 4
        assert {key for keys in asked.cache._resources.values() for key in keys} == set(stored)
    asked.cache.clear()
    assert (asked.cache.size, len(asked.cache)) == (0, 0)


def test_encoded_max_age_has_no_needless_bytes():
    asked = Asked()
    asked.learn(get(), content(max_age=1))
    asked.now += 0.5
    assert asked.look(get()).option(Option.MAX_AGE) == encode_uint(0) == b""
