"""The cloud as a process: the node on a socket, the pages in their thread, upkeep by the hour."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from vitalgate.cloud.enrolment_events import Event, GatewayEnrolled, GatewayRekeyed
from vitalgate.cloud.identity import load_cloud_identity
from vitalgate.cloud.ingest import fill_board
from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.node import CloudNode
from vitalgate.cloud.sessions import Sessions
from vitalgate.cloud.settings import CloudSettings
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.store.retention import Retention, RetentionPolicy
from vitalgate.cloud.store.store import Store
from vitalgate.cloud.users import Users
from vitalgate.cloud.web.admin import sign_in_address
from vitalgate.cloud.web.app import create_app
from vitalgate.cloud.web.server import Tls, WebServer, serve
from vitalgate.cloud.web.settings import (
    Check,
    Control,
    KeyAge,
    Level,
    Listener,
    SecurityState,
    Services,
    WebSettings,
)
from vitalgate.counters import Counters
from vitalgate.gateway import logs
from vitalgate.gateway.home import Home
from vitalgate.net.exposition import Gauge
from vitalgate.net.stacks import STACKS
from vitalgate.net.udp import UdpDriver, bind

DATABASE = "cloud.db"
UPKEEP_EVERY = 3600.0
UPKEEP_PAUSE = 0.25
NAMES_EVERY = 2.0
"""Seconds between looks at names that other processes gave to devices."""


@dataclass(frozen=True, slots=True)
class CloudAddresses:
    """Where a running cloud is: CoAP as (host, port), the pages' origin, a one-time link for the first visit or ''."""

    coap: tuple[str, int]
    dashboard: str
    first_link: str


def open_store(home: Home) -> Store:
    """The cloud's store in its data folder. Raises `StoreError`."""
    return Store(home.data / DATABASE, home.keys)


class CloudRuntime:
    """Starts, runs and stops a cloud inside a running event loop."""

    def __init__(self, settings: CloudSettings, home: Home) -> None:
        self.settings = settings
        self.counters = Counters()
        self._home = home
        self._log = logs.get("cloud")
        self._store = open_store(home)
        self._users = Users(self._store.database, self._store.audit)
        self._sessions = Sessions(self._store.database, self._users, self._store.audit)
        self._sequences = home.sequences()
        self._board = LiveBoard()
        self._driver: UdpDriver | None = None
        self._web: WebServer | None = None
        self._retention = Retention(self._store, RetentionPolicy())
        self._upkeep: asyncio.TimerHandle | None = None
        self._naming: asyncio.TimerHandle | None = None
        self._names: dict[str, str] = {}

    def start(self) -> CloudAddresses:
        """Listen and serve. Raises `AddressError`, `ServeError`, `StoreError` and what the key stores raise."""
        settings, loop = self.settings, asyncio.get_running_loop()
        fill_board(self._store, self._board)
        node = CloudNode(
            store=self._store,
            enrolment=self._store.enrolment("enrolment"),
            identity=load_cloud_identity(self._home.keys),
            sequences=self._sequences,
            stacks=settings.coap.stacks,
            board=self._board,
            counters=self.counters,
            on_enrolment=self._enrolment,
        )
        node.start(loop.time())
        self._driver = UdpDriver(node, bind(*settings.coap.listen), counters=self.counters, clock=loop.time)
        page = settings.dashboard
        tls = Tls(page.certificate, page.private_key) if page.certificate and page.private_key else None
        services = Services(
            self._board,
            self._store,
            self._users,
            self._sessions,
            security=self._security,
            checks=self._checks,
            gauges=self._gauges,
            counters=(self.counters,),
        )
        pages = WebSettings(hosts=page.hosts, secure=tls is not None, demand_password=page.demand_password)
        app = create_app(services, pages)
        self._web = serve(app, page.listen[0], page.listen[1], tls)
        token = self._users.first_link()
        self._home.announce({"coap": f"{self._driver.address[0]}:{self._driver.address[1]}", "web": self._web.origin})
        self._upkeep = loop.call_later(UPKEEP_EVERY, self._keep_up)
        self._naming = loop.call_later(NAMES_EVERY, self._take_names)
        self._log.info("cloud started", coap_port=self._driver.address[1], dashboard=self._web.origin)
        if settings.coap.allows_unprotected:
            self._log.warning("unprotected deliveries are accepted: anyone on the way can read and change them")
        return CloudAddresses(
            self._driver.address, self._web.origin, sign_in_address(self._web.origin, token) if token else ""
        )

    def stop(self) -> None:
        """Stop listening, let pages go, write down what waits."""
        for timer in (self._upkeep, self._naming):
            if timer is not None:
                timer.cancel()
        if self._driver is not None:
            self._driver.close()
        if self._web is not None:
            self._web.stop()
        self._sequences.close()
        self._store.close()
        self._home.retire()
        self._log.info("cloud stopped")

    def _enrolment(self, event: Event) -> None:
        if isinstance(event, GatewayEnrolled):
            self._log.info("gateway enrolled", gateway=event.gateway, replaced=bool(event.replaced))
        elif isinstance(event, GatewayRekeyed):
            self._log.info("gateway made fresh session keys", gateway=event.gateway, rotated=bool(event.rotated))

    def _take_names(self) -> None:
        self._naming = asyncio.get_running_loop().call_later(NAMES_EVERY, self._take_names)
        try:
            names = {device.urn: device.label for device in self._store.read.devices() if device.label}
        except StoreError:
            return  # it is looked at again; ingest says what is wrong with the store
        for urn, label in names.items():
            if self._names.get(urn) != label:
                self._board.name(urn, label)
        self._names = names

    def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        again = UPKEEP_EVERY
        try:
            self._sessions.sweep()
            if self._retention.step():
                again = UPKEEP_PAUSE  # more is waiting; ingest gets its turn in between
        except StoreError as error:
            self._log.error("upkeep of the store failed", reason=str(error))
        self._upkeep = loop.call_later(again, self._keep_up)

    # what the pages ask; in their thread

    def _security(self) -> SecurityState:
        assert self._driver is not None
        assert self._web is not None
        host, port = self._driver.address
        listeners = [
            Listener("deliveries of gateways", f"{STACKS[slug].title} on {host}:{port}", STACKS[slug].words)
            for slug in self.settings.coap.stacks
        ]
        listeners.append(Listener("enrolment", f"CoAP on {host}:{port}", "one-time codes, mutual proof of keys"))
        tls = "TLS" if self._web.origin.startswith("https") else "loopback only"
        listeners.append(Listener("pages", self._web.origin, tls))
        protection = Control(
            "Deliveries",
            Level.BAD if self.settings.coap.allows_unprotected else Level.GOOD,
            "unprotected deliveries are accepted" if self.settings.coap.allows_unprotected else "protected only",
        )
        at_rest = Control("Clinical data at rest", Level.GOOD, f"sealed; master key from {self._home.master.source}")
        keys = tuple(KeyAge(info.purpose, "cloud", info.made_at) for info in self._home.keys.key_infos())
        return SecurityState((protection, at_rest), tuple(listeners), keys)

    def _checks(self) -> Sequence[Check]:
        try:
            self._store.read.totals()
        except StoreError:
            return (Check("store", ok=False),)
        return (Check("store", ok=True),)

    def _gauges(self) -> Sequence[Gauge]:
        try:
            totals = self._store.read.totals()
        except StoreError:
            return ()
        return (
            Gauge("cloud_gateways", "Gateways known.", totals.gateways),
            Gauge("cloud_devices", "Devices known.", totals.devices),
            Gauge("cloud_entries", "Entries stored.", totals.entries),
        )
