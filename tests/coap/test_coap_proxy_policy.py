"""The allow-list of a proxy: a table of rules, targets and what becomes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.coap.proxypolicy import PORTS, Policy, RuleError, Target, parse_rule


def policy(*rules):
    return Policy(parse_rule(rule) for rule in rules)


COAP = Target("coap", "sensor.example", 5683)


@pytest.mark.parametrize("address", ["93.184.216.34", "127.0.0.1", "10.0.0.1", "2606:2800::1", "::1", "224.0.1.187"])
def test_without_rules_everything_is_denied(address):
    assert policy().judge_name(COAP) == "not_allowed"
    assert policy().judge(COAP, address) in ("not_allowed", "group_address")
    assert policy().judge_name(Target("coap", address, 5683)) in ("not_allowed", "group_address")


@pytest.mark.parametrize(
    ("rule", "target", "allowed"),
    [
        ("coap://sensor.example", COAP, True),
        ("coap://SENSOR.example:5683", COAP, True),
        ("coap://sensor.example", Target("coap", "sensor.example.", 5683), True),
        ("coap://sensor.example", Target("coap", "sensor.example", 5684), False),
        ("coap://sensor.example:*", Target("coap", "sensor.example", 5684), True),
        ("coap://sensor.example", Target("http", "sensor.example", 5683), False),
        ("coap://sensor.example", Target("coap", "x.sensor.example", 5683), False),
        ("coap://sensor.example", Target("coap", "sensor.example.evil", 5683), False),
        ("93.184.0.0/16", COAP, True),
        ("93.184.0.0/16", Target("http", "sensor.example", 8080), True),
        ("coap://93.184.0.0/16", Target("http", "sensor.example", 80), False),
        ("coap://93.184.216.34", COAP, True),
        ("coap://93.184.216.35", COAP, False),
        ("93.0.0.0/16", COAP, False),
        ("2000::/3", COAP, False),
        ("0.0.0.0/0", COAP, True),
    ],
)
def test_a_global_address(rule, target, allowed):
    assert (policy(rule).judge(target, "93.184.216.34") == "") is allowed
    if allowed:
        assert policy(rule).judge_name(target) == ""


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3",
     "198.18.0.1", "240.0.0.1", "::1", "fe80::1", "fd00::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "2001:db8::1", "2001::1", "fe80::1%eth0"],
)  # fmt: skip
def test_special_addresses_must_be_named_by_address(address):
    everything = ("0.0.0.0/0", "::/0", "coap://sensor.example", "coap://[2000::]")
    assert policy(*everything).judge(COAP, address) == "special_address"
    assert policy("128.0.0.0/1", "0.0.0.0/1", "8000::/1", "::/1").judge(COAP, address) == "special_address"
    assert policy("coap://other.example").judge(COAP, address) == "not_allowed"


@pytest.mark.parametrize(
    ("rule", "address"),
    [
        ("127.0.0.1/32", "127.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("coap://127.0.0.1:5683", "127.0.0.1"),
        ("coap://[::1]", "::1"),
        ("coap://[::1]:*", "::1"),
        ("192.168.0.0/16", "192.168.3.4"),
        ("192.168.3.0/24", "192.168.3.4"),
        ("fd00::/8", "fd12::1"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_special_addresses_that_are_named(rule, address):
    assert policy(rule).judge(COAP, address) == ""
    assert policy(rule).judge_name(Target("coap", address, 5683)) == ""


@pytest.mark.parametrize("address", ["224.0.1.187", "ff02::fd", "255.255.255.255", "0.0.0.0", "::", "::ffff:224.0.0.1"])
def test_groups_are_never_asked(address):
    assert policy("0.0.0.0/0", "::/0", "224.0.0.0/4", "ff00::/8", f"coap://[{address}]").judge(COAP, address) == (
        "group_address"
    )


def test_no_name_is_looked_up_that_no_rule_could_permit():
    assert policy("coap://other.example").judge_name(COAP) == "not_allowed"
    assert policy("http://10.0.0.0/8").judge_name(COAP) == "not_allowed"
    assert policy("coap://10.0.0.0/8").judge_name(COAP) == "", "it may turn out to be there"


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "localhost"])
def test_other_spellings_of_an_address_are_names_and_judged_by_what_they_turn_out_to_be(spelling):
    target = Target("coap", spelling, 5683)
    assert policy("0.0.0.0/0").judge(target, "127.0.0.1") == "special_address"
    assert policy("coap://sensor.example").judge_name(target) == "not_allowed"


@pytest.mark.parametrize(
    "text",
    ["", "sensor.example", "ftp://sensor.example", "coap://", "coap://a:0", "coap://a:65536", "coap://a:x",
     "coap://a b", "10.0.0.1/8", "10.0.0.0/33", "coap://[::1", "coap://[::1]x", "coap://a/b", "coap://-a", "coap://a@b",
     "coap://é", "10.0.0.1", "coap://" + "a" * 254],
)  # fmt: skip
def test_what_is_no_rule(text):
    with pytest.raises(RuleError):
        parse_rule(text)


@given(st.text(max_size=40), st.sampled_from(["", "coap://", "http://"]))
def test_any_text_is_a_rule_or_the_one_error(text, scheme):
    try:
        rule = parse_rule(scheme + text)
    except RuleError:
        return
    assert (rule.host is None) != (rule.network is None)
    assert rule.scheme is None or rule.scheme in PORTS
