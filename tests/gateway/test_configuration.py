"""Configuration: what is refused, and that every refusal names file, key and remedy in one line."""

import json

import pytest

from vitalgate.cli.cloud import TEMPLATE as CLOUD_TEMPLATE
from vitalgate.cli.gateway import TEMPLATE as GATEWAY_TEMPLATE
from vitalgate.cloud.settings import CloudSettings
from vitalgate.gateway.configuration import ConfigurationError, load, schema_of
from vitalgate.gateway.settings import GatewaySettings

GATEWAY = """
schema = 1
[storage]
data = "data"
state = "state"
[uplink]
cloud = "127.0.0.1:5683"
"""
CLOUD = GATEWAY.replace('[uplink]\ncloud = "127.0.0.1:5683"', '[coap]\nlisten = "127.0.0.1:5683"')


def loaded(tmp_path, text, model=GatewaySettings):
    path = tmp_path / "program.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, model)


def test_paths_are_relative_to_the_file(tmp_path):
    settings = loaded(tmp_path, GATEWAY)
    assert settings.storage.data == tmp_path / "data"
    assert settings.uplink.cloud == ("127.0.0.1", 5683)
    assert settings.uplink.stack == "coap-oscore"


@pytest.mark.parametrize(("text", "model"), [(GATEWAY_TEMPLATE, GatewaySettings), (CLOUD_TEMPLATE, CloudSettings)])
def test_templates_are_valid(tmp_path, text, model):
    loaded(tmp_path, text.format(name="x"), model)


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (GATEWAY.replace("schema = 1", ""), "schema", "write `schema = 1`"),
        (GATEWAY.replace("schema = 1", "schema = 2"), "schema", "write `schema = 1`"),
        (GATEWAY.replace("schema = 1", ""), "schema", "is missing"),
        (GATEWAY + "typo = 1", "uplink.typo", "remove it"),
        (GATEWAY.replace("cloud =", "clowd ="), "uplink.clowd", "remove it"),
        (GATEWAY.replace('data = "data"', ""), "storage.data", "add it"),
        (GATEWAY.replace("127.0.0.1:5683", "nowhere"), "uplink.cloud", "HOST:PORT"),
        (GATEWAY.replace("5683", "99999"), "uplink.cloud", "HOST:PORT"),
        (GATEWAY + 'stack = "tls"', "uplink.stack", "coap-nosec, coap-oscore"),
        (GATEWAY.replace('"state"', '"data/state"'), "storage", "outside data"),
        (GATEWAY + '[master_key]\npassphrase = "hunter2"', "master_key.passphrase", "@FILE"),
        (GATEWAY + '[master_key]\nfile = "data/key"', "master_key.file", "move it out"),
        (GATEWAY + '[web]\nlisten = "0.0.0.0:1"', "web.listen", "127.0.0.1"),
        (GATEWAY + '[[device]]\nkind = "toaster"\nport = "/dev/x"', "device.0", "ivy450c"),
        (GATEWAY + '[[device]]\nkind = "nonin"\nlisten = "127.0.0.1:1"', "device.0", "port"),
        (GATEWAY + '[[device]]\nkind = "nonin"\nport = ""', "device.0.port", "at least 1 character"),
        (GATEWAY + '[[device]]\nkind = "hl7"\nlisten = "[::1]:1"\nallow = ["x"]', "device.0.allow.0: ", "network"),
        (GATEWAY + 2 * '[[device]]\nkind = "nonin"\nport = "/dev/x"\n', "device", "stands twice"),
        (GATEWAY + "[spool]\nmax_bytes = 1", "spool.max_bytes", "65536"),
        ("schema = ", "is not TOML", "correct that place"),
        ("\udcff", "is not UTF-8", "save it as UTF-8"),
    ],
)
def test_faults_name_file_key_and_remedy(tmp_path, text, key, remedy):
    path = tmp_path / "program.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        load(path, GatewaySettings)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert key in message
    assert remedy in message
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CLOUD + '[dashboard]\nlisten = "0.0.0.0:8080"', "needs TLS"),
        (CLOUD + '[dashboard]\ncertificate = "c.pem"', "go together"),
        (CLOUD.replace("[coap]", '[coap]\nstacks = ["none"]'), "coap.stacks"),
        (CLOUD.replace("[coap]", "[coap]\nstacks = []"), "coap.stacks"),
    ],
)
def test_a_cloud_is_safe_or_refused(tmp_path, text, key):
    with pytest.raises(ConfigurationError, match=key):
        loaded(tmp_path, text, CloudSettings)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load(tmp_path / "absent.toml", GatewaySettings)


def test_schemas_are_json():
    for model in (GatewaySettings, CloudSettings):
        schema = json.loads(json.dumps(schema_of(model)))
        assert schema["properties"]["schema"]["const"] == 1
        assert "storage" in schema["required"]
