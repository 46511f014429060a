"""`vitalgate bench coap`: it runs against every peer that is installed and gives the figures that it promises."""

import importlib.util
import shutil

import pytest
from peerkit import tool

from vitalgate.cli.coapbench import LIBCOAP, SMOKE, bench_coap

pytestmark = pytest.mark.peer
KINDS = ("closed_32", "closed_1", "flood", "observe_fan_out", "blockwise_5k_64")


@pytest.fixture(scope="module")
def result():
    tool(LIBCOAP)
    assert importlib.util.find_spec("aiocoap")
    return bench_coap(SMOKE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_server_answers_every_load(result, kind):
    peers = {"aiocoap", "libcoap", "vitalgate"} | ({"echo"} if kind.startswith("closed") else set())
    assert {peer for peer, rate in result[kind].items() if rate} == peers


def test_the_ratios_are_those_of_the_rates(result):
    rates = result["closed_32"]
    for other in ("aiocoap", "libcoap", "echo"):
        assert result[f"ratio_to_{other}"] == pytest.approx(rates["vitalgate"] / rates[other], rel=0.01)
        assert result["server_us_per_request"][other] > 0
    assert set(result["memory_growth_per_100000"]) == set(rates)


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = bench_coap(SMOKE)
    assert found["closed_32"]["libcoap"] is None
    assert found["ratio_to_libcoap"] is None
    assert found["ratio_to_aiocoap"] > 0
