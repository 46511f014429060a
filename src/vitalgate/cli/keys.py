"""`vitalgate keys list|rotate|revoke`, at a gateway or at the cloud, whichever the configuration is for."""

import enum
import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from vitalgate.cli.common import ConfigOption, cloud_settings, gateway_settings, open_home, said_in_words
from vitalgate.cli.output import JsonFlag, document, note, say, wrong
from vitalgate.cloud import enrolment
from vitalgate.cloud.identity import load_cloud_identity, rotate_cloud_identity
from vitalgate.cloud.runtime import open_store
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.home import Home
from vitalgate.gateway.identity import fingerprint_text
from vitalgate.gateway.vault import GatewayVault

app = typer.Typer(
    help="Keys: list, rotate, revoke. Keys themselves are never printed.", no_args_is_help=True, add_completion=False
)

Row = dict[str, object]


class Purpose(enum.StrEnum):
    """Which keys are rotated: those that seal at rest, the program's own identity, or those of OSCORE."""

    DATA = "data"
    IDENTITY = "identity"
    SESSION = "session"


EFFECT = {
    (False, Purpose.DATA): "fresh data keys are in use from the gateway's next start; what is sealed stays readable",
    (False, Purpose.IDENTITY): "a running gateway takes the next identity up within seconds, once the cloud confirms",
    (False, Purpose.SESSION): "asked for: a running gateway makes fresh session keys within seconds",
    (True, Purpose.DATA): "fresh data keys are in use from the cloud's next start; what is sealed stays readable",
    (True, Purpose.IDENTITY): "restart the cloud; gateways take its new key up when they next renew their session",
    (True, Purpose.SESSION): "the sessions end; the gateway makes fresh keys at its next message",
}
"""What is still to happen after a rotation, by (at the cloud, what)."""


def is_cloud(config: Path) -> bool:
    """True when ``config`` is a cloud's (it has `[coap]`)."""
    try:
        return "coap" in tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # reading it as a gateway's says what is wrong


def _data_keys(home: Home) -> list[Row]:
    return [
        {
            "kind": "data key",
            "key": info.key_id,
            "gateway": "",
            "state": f"{'active' if info.active else 'former'} ({info.purpose})",
            "since": info.made_at,
        }
        for info in home.keys.key_infos()
    ]


def _row(entry: object) -> Row:
    return {
        name: getattr(entry, name)
        for name in ("kind", "key", "gateway", "state", "since", "until", "reason")
        if getattr(entry, name, None) not in (None, "")
    }


def _cloud_keys(home: Home, store: Store) -> list[Row]:
    own: Row = {
        "kind": "cloud",
        "key": fingerprint_text(load_cloud_identity(home.keys).key.public),
        "gateway": "",
        "state": "active",
    }
    return [own, *map(_row, enrolment.list_keys(store.enrolment(), time.time())), *_data_keys(home)]


def _print(rows: list[Row], json: bool) -> None:
    if json:
        document({"keys": rows})
        return
    for row in rows:
        since = row.get("since")
        age = time.strftime("%Y-%m-%d %H:%M", time.localtime(since)) if isinstance(since, float) else "-"
        gateway = row.get("gateway") or "-"
        say(f"{row['kind']:<14} {row['key']:<32} {gateway:<20} {row['state']:<24} {age}")


@app.command("list")
def list_keys(config: ConfigOption, json: JsonFlag = False) -> None:
    """Every key by its name, with its state and age."""
    if is_cloud(config):
        settings = cloud_settings(config)
        with said_in_words():
            home = open_home(settings.storage, settings.master_key)
            store = open_store(home)
            try:
                rows = _cloud_keys(home, store)
            finally:
                store.close()
    else:
        gateway = gateway_settings(config)
        with said_in_words():
            home = open_home(gateway.storage, gateway.master_key)
            rows = [*map(_row, GatewayVault(home.keys, home.session_keys).list_keys()), *_data_keys(home)]
    _print(rows, json)


@app.command("rotate")
def rotate(
    config: ConfigOption,
    what: Annotated[Purpose, typer.Option(help="session, identity, or data (at rest).")] = Purpose.SESSION,
    gateway: Annotated[str, typer.Option(help="At the cloud: whose session keys.")] = "",
    json: JsonFlag = False,
) -> None:
    """Put fresh keys in place of old ones; nothing that waits is lost."""
    if is_cloud(config):
        settings = cloud_settings(config)
        with said_in_words():
            home = open_home(settings.storage, settings.master_key)
            store = open_store(home)
            try:
                if what is Purpose.IDENTITY:
                    rotate_cloud_identity(home.keys)
                elif what is Purpose.SESSION:
                    if not gateway:
                        wrong("at the cloud, session keys are a gateway's: name it with --gateway")
                    enrolment.rotate(store.enrolment("command line"), gateway)
                else:
                    _rotate_data(home)
                rows = _cloud_keys(home, store)
            finally:
                store.close()
    else:
        own = gateway_settings(config)
        if gateway:
            wrong("--gateway is for the cloud; a gateway rotates its own keys")
        with said_in_words():
            home = open_home(own.storage, own.master_key)
            vault = GatewayVault(home.keys, home.session_keys)
            if what is Purpose.DATA:
                _rotate_data(home)
            else:
                vault.rotate(identity=what is Purpose.IDENTITY)
            rows = [*map(_row, vault.list_keys()), *_data_keys(home)]
    _print(rows, json)
    if not json:
        note(EFFECT[is_cloud(config), what])


def _rotate_data(home: Home) -> None:
    for purpose in sorted({info.purpose for info in home.keys.key_infos()}):
        home.keys.rotate(purpose)


@app.command("revoke")
def revoke(
    config: ConfigOption,
    name: Annotated[str, typer.Argument(help="At the cloud: a gateway, or an open code's id.")] = "",
    reason: Annotated[str, typer.Option(help="Kept in the record.")] = "",
    json: JsonFlag = False,
) -> None:
    """Take keys out of service for good. At a gateway: forget its identity (revoke it at the cloud too)."""
    if is_cloud(config):
        if not name:
            wrong("name the gateway or the code to revoke; see `vitalgate keys list`")
        settings = cloud_settings(config)
        with said_in_words():
            store = open_store(open_home(settings.storage, settings.master_key))
            try:
                ended = enrolment.revoke(store.enrolment("command line"), name, time.time(), reason)
            finally:
                store.close()
        rows = [*map(_row, ended)]
    else:
        own = gateway_settings(config)
        with said_in_words():
            home = open_home(own.storage, own.master_key)
            with home.sequences() as sequences:
                rows = [*map(_row, GatewayVault(home.keys, home.session_keys).revoke(sequences))]
    _print(rows, json)
