"""Whole processes on loopback: the demo as a user runs it, and crashes at random moments of a run."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitalgate.cli.demonstration import Demonstration

pytestmark = pytest.mark.e2e

KEYS = {
    "security", "stack", "devices", "observations_decoded", "observations_stored", "waveform_samples_decoded",
    "waveform_samples_stored", "lost", "duplicated", "device_gaps", "uplink_bytes", "uplink_datagrams", "latency_ms",
    "seconds", "dashboard",
}  # fmt: skip
CRASHES = 20
SEED = 20261123


@pytest.mark.parametrize(
    ("security", "more", "stack"),
    [
        ("oscore", "", "coap-oscore"),
        ("nosec", "", "coap-nosec"),
        ("dtls", "", "coap-dtls13-rpk"),
        ("dtls", "--dtls-version 1.2 --dtls-mode psk", "coap-dtls12-psk"),
    ],
)
def test_the_demo_accounts_for_everything(security, more, stack):
    done = subprocess.run(
        [sys.executable, "-m", "vitalgate", "demo", "--security", security, *more.split(), "--seconds", "5", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == KEYS
    assert set(result["latency_ms"]) == {"p50", "p95", "p99", "max"}
    assert (result["security"], result["stack"], result["devices"]) == (security, stack, 3)
    assert (result["lost"], result["duplicated"], result["device_gaps"]) == (0, 0, 0)
    assert result["observations_decoded"] == result["observations_stored"] > 50
    assert result["waveform_samples_decoded"] == result["waveform_samples_stored"] > 500
    assert result["uplink_datagrams"] > 5
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["max"]
    assert re.search(r"http://127\.0\.0\.1:\d+/link#\S+", done.stderr)
    assert ("WARNING" in done.stderr and "UNPROTECTED" in done.stderr) == (security == "nosec")


def test_crashes_at_random_moments_lose_and_double_nothing(tmp_path):
    moments = random.Random(SEED)
    print(f"seed {SEED}")

    async def scenario():
        demonstration = Demonstration("coap-oscore", folder=tmp_path / "demo", seed=3)
        try:
            await demonstration.start()
            parts = ["gateway", "cloud"] * CRASHES
            moments.shuffle(parts)
            for part in parts:
                # Some blows fall while the program is still starting, most while everything flows.
                await asyncio.sleep(2.6 * moments.random())
                await demonstration.crash(part)
            await asyncio.sleep(4)
            result = await demonstration.finish()
            return result, demonstration.gaps()
        finally:
            await demonstration.clean_up()

    started = time.monotonic()
    result, gaps = asyncio.run(scenario())
    print(f"{result}, {len(gaps)} gaps, {time.monotonic() - started:.0f} s")
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["observations_stored"] > 300
    assert "gateway crashed" in {cause for _, cause in gaps}
    # A device that waits for its acknowledgement has lost nothing at all.
    said = (tmp_path / "demo" / "hl7.journal").read_text().split()
    ledger = json.loads((tmp_path / "demo" / "gateway" / "data" / "ledger.json").read_text())
    (heard,) = (frames for urn, frames in ledger["frames"].items() if "hl7" in urn)
    assert len(said) > 20
    assert [name for name in said if heard.get(name, 0) != 1] == []


def test_under_dtls_both_ends_find_each_other_again(tmp_path):
    """An association dies with either process; the last blow falls on the cloud, just before the account."""

    async def scenario():
        demonstration = Demonstration("coap-dtls13-rpk", folder=tmp_path / "demo", seed=4)
        try:
            await demonstration.start()
            for part in ("cloud", "gateway", "cloud", "gateway", "cloud"):
                await asyncio.sleep(3)
                await demonstration.crash(part)
            return await demonstration.finish()
        finally:
            await demonstration.clean_up()

    result = asyncio.run(scenario())
    print(result)
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["observations_stored"] > 100


def test_nothing_known_stands_in_the_folders_in_clear(tmp_path):
    """Values, names, identifiers and codes of a run, looked for in every file that it leaves."""

    async def scenario():
        demonstration = Demonstration("coap-oscore", folder=tmp_path / "demo")
        try:
            await demonstration.start()
            await demonstration.run(asyncio.Event(), 4, lambda _: None)
            return await demonstration.finish()
        finally:
            await demonstration.clean_up()

    result = asyncio.run(scenario())
    assert result["observations_stored"] > 40
    master = [(tmp_path / "demo" / part / "keys" / "master.key").read_bytes().strip() for part in ("cloud", "gateway")]
    secret = [
        b"urn:dev:example",
        b"SIMULATION",
        b"SIM-0001",
        b"MDC_",
        b"APNEA",
        b"OBX|",
        b"Demo ",  # the names that the bindings give the devices
        b"demo-gateway",
        *master,
        *map(bytes.fromhex, map(bytes.decode, master)),
    ]
    looked = 0
    for part in ("cloud", "gateway"):
        for folder, _, files in os.walk(tmp_path / "demo" / part):
            for name in files:
                if folder.endswith("keys") or name.endswith(".toml") or name == "ledger.json":
                    continue  # the key itself, what a person wrote, and the journal that only the demo keeps
                path = Path(folder) / name
                content = path.read_bytes()
                looked += 1
                for known in secret:
                    if name.endswith(".jsonl") and known in (b"urn:dev:example", b"demo-gateway"):
                        continue  # logs name devices and gateways by their addresses, which say nothing of a patient
                    assert known not in content, f"{known[:12]!r} stands in {path}"
    assert looked >= 6
