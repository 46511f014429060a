"""Every verb through the command line: exit status, one JSON document, errors in one line that help."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from vitalgate.cli.app import VERBS, app, load
from vitalgate.cli.common import gateway_settings
from vitalgate.cli.enroll import _bindings
from vitalgate.cli.ingestbench import bench_ingest


def call(*arguments, status=0, **environment):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment or None)
    assert result.exit_code == status, result.output
    return result


def document(*arguments, status=0, **environment):
    return json.loads(call(*arguments, "--json", status=status, **environment).stdout)


@pytest.fixture
def folders(tmp_path):
    """A cloud and a gateway configured as `init` does, on ports of the test's own choice."""
    call("cloud", "init", tmp_path / "cloud")
    call("gateway", "init", tmp_path / "gateway")
    import socket

    from vitalgate.cli.demonstration import free_port

    port = free_port(socket.SOCK_DGRAM)
    cloud, gateway = tmp_path / "cloud" / "cloud.toml", tmp_path / "gateway" / "gateway.toml"
    cloud.write_text(cloud.read_text().replace(":5683", f":{port}").replace(":8080", ":0"))
    tty = tmp_path / "ttyIvy"
    gateway.write_text(
        gateway.read_text().replace(":5683", f":{port}").replace(":9600", ":0")
        + f'\n[[device]]\nkind = "ivy450c"\nport = "{tty}"\n'
    )
    return cloud, gateway, tty


def test_help_and_version():
    help_text = call("--help").stdout
    assert "Information only" in help_text
    assert all(verb in help_text for verb in VERBS)
    assert re.fullmatch(r"vitalgate \d+\.\d+\.\d+\n", call("--version").stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_each_says_of_itself(verb):
    # The list is written without importing them: their own word is elsewhere.
    assert load(verb).help == VERBS[verb]


def test_help_imports_no_verb():
    code = "import sys; sys.argv = ['vitalgate', '--help']; from vitalgate.cli.app import app; app(standalone_mode=False); print(*sys.modules)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "vitalgate.cli.app" in modules
    assert not {f"vitalgate.cli.{verb}" for verb in VERBS} & set(modules)


def test_device_kinds():
    kinds = document("device", "kinds")["kinds"]
    assert {row["kind"] for row in kinds} >= {"ivy450c", "nonin", "hl7"}
    assert [row["two_way"] for row in kinds if row["kind"] == "hl7"] == [True]


def test_configurations(folders, tmp_path):
    cloud, gateway, _ = folders
    for path in (cloud, gateway):
        found = document("config", "check", path)
        assert found["valid"]
        assert found["for"] in str(path)
    assert document("config", "schema", "gateway")["properties"]["uplink"]
    broken = tmp_path / "broken.toml"
    broken.write_text(gateway.read_text().replace("[uplink]", "[uplinks]"))
    result = call("config", "check", broken, status=2)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert str(broken) in line
    assert "uplink" in line
    call("cloud", "init", cloud.parent, status=2)


def test_secrets_are_never_literals(folders):
    _, gateway, _ = folders
    result = call("enroll", "gateway", "--config", gateway, "--code", "AAAA-BBBB", status=2)
    assert "@FILE or env:NAME" in result.stderr
    assert "AAAA" not in result.stderr


def test_patients_are_never_literals_either(folders):
    """Everybody on the machine can read the arguments of a process."""
    _, gateway, tty = folders
    device = ("enroll", "device", "--config", gateway, "--kind", "ivy450c", "--port", tty, "--patient")
    refused = call(*device, "Doe^Jane", status=2)
    assert "--patient" in refused.stderr
    assert "@FILE or env:NAME" in refused.stderr
    assert "Doe" not in refused.stderr
    made = document(*device, "env:PATIENT", PATIENT="Doe^Jane")
    (binding,) = _bindings(gateway_settings(gateway)).table
    assert (binding.urn, binding.patient) == (made["device"], "Doe^Jane")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--kind", "toaster", "--port", "/dev/x"], "toaster"),
        (["--kind", "ivy450c", "--port", "/dev/absent"], "no ivy450c on /dev/absent"),
        (["--kind", "ivy450c", "--port", "TTY", "--urn", "urn:nonsense"], "urn:dev"),
    ],
)
def test_devices_that_cannot_be_enrolled(folders, arguments, word):
    _, gateway, tty = folders
    arguments = [str(tty) if argument == "TTY" else argument for argument in arguments]
    assert word in call("enroll", "device", "--config", gateway, *arguments, status=2).stderr


def test_devices_are_enrolled_listed_removed(folders):
    _, gateway, tty = folders
    made = document("enroll", "device", "--config", gateway, "--kind", "ivy450c", "--port", tty, "--label", "Bed 3")
    assert made["device"].startswith("urn:dev:mac:")
    (row,) = document("enroll", "list", "--config", gateway)["devices"]
    assert (row["device"], row["label"]) == (made["device"], "Bed 3")
    call("enroll", "device", "--config", gateway, "--kind", "ivy450c", "--port", tty, status=2)
    call("enroll", "remove", "--config", gateway, made["device"])
    assert document("enroll", "list", "--config", gateway)["devices"] == []
    call("enroll", "remove", "--config", gateway, made["device"], status=2)


def test_simulate_refuses_what_does_not_fit(tmp_path):
    assert "--link" in call("device", "simulate", "ivy450c", "--connect", "127.0.0.1:1", status=2).stderr
    assert "--connect" in call("device", "simulate", "hl7", "--link", tmp_path / "x", status=2).stderr
    assert (
        "drop" in call("device", "simulate", "nonin", "--link", tmp_path / "x", "--faults", "burn=1", status=2).stderr
    )
    played = document("device", "simulate", "nonin", "--link", tmp_path / "tty", "--seconds", "1.2")
    assert played["frames"] >= 2


def test_a_gateway_without_identity_says_what_to_do(folders):
    _, gateway, _ = folders
    assert "enroll gateway" in call("gateway", "run", "--config", gateway, status=1).stderr
    findings = document("doctor", "--config", gateway, status=1)["findings"]
    by_name = {row["what"]: row for row in findings}
    assert by_name["identity"]["state"] == "bad"
    assert "enroll gateway" in by_name["identity"]["remedy"]
    assert any("is not enrolled" in row["found"] for row in findings)


def until(ready, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.1)  # a condition is polled; its deadline is above
    raise AssertionError(f"{ready} did not come true in {seconds} s")


def test_the_newcomers_way(folders, tmp_path):
    """Configure, start, enrol, speak, look, rotate, revoke: as the README says."""
    cloud, gateway, tty = folders
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "vitalgate", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        processes.append(process)
        return process

    def doctor(config):
        result = CliRunner().invoke(app, ["doctor", "--config", str(config), "--json"])
        return result.exit_code == 0 and json.loads(result.stdout)

    try:
        start("cloud", "run", "--config", cloud)
        until(lambda: doctor(cloud))
        assert document("cloud", "link", "--config", cloud)["link"].startswith("http://127.0.0.1:")
        code = document("cloud", "code", "--config", cloud, "--gateway", "ward-7")["code"]
        enrolled = document("enroll", "gateway", "--config", gateway, "--code", "env:CODE", CODE=code)
        assert enrolled["gateway"] == "ward-7"
        call("enroll", "device", "--config", gateway, "--kind", "ivy450c", "--port", tty, "--demo")
        start("device", "simulate", "ivy450c", "--link", tty, "--seconds", "120")
        start("gateway", "run", "--config", gateway)
        healthy = until(lambda: doctor(gateway))
        assert any(row["what"] == "ivy450c" and "frames" in row["found"] for row in healthy["findings"])

        def session():
            rows = document("keys", "list", "--config", gateway)["keys"]
            return {row["key"] for row in rows if row["kind"] == "session"}, {
                row["key"] for row in rows if row["kind"] == "identity"
            }

        sessions, identities = session()
        call("keys", "rotate", "--config", gateway, "--what", "identity")
        until(lambda: session()[0] != sessions and session()[1] != identities)
        until(lambda: doctor(gateway))
        (cloud_row,) = (r for r in document("keys", "list", "--config", cloud)["keys"] if r["kind"] == "cloud")
        assert cloud_row["state"] == "active"
        ended = document("keys", "revoke", "--config", cloud, "ward-7", "--reason", "stolen")["keys"]
        assert any(row["state"] == "revoked" for row in ended)
        until(lambda: not doctor(gateway), seconds=60)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=20)


def test_the_ingest_benchmark_measures(tmp_path):
    result = bench_ingest(observations=800, rounds=1)
    assert {"observations_per_s", "ratio_to_sqlite", "bytes_per_observation"} <= set(result)
    assert result["observations_per_s"] > 100
    assert 0 < result["ratio_to_sqlite"] < 1.5
