"""The cloud's configuration: which keys exist, what they mean, what they default to."""

import ipaddress

from pydantic import Field, field_validator, model_validator

from vitalgate.gateway.configuration import Endpoint, Section
from vitalgate.gateway.settings import FilePath, Program
from vitalgate.net.stacks import STACKS


class Coap(Section):
    """Where gateways deliver. Loopback unless told otherwise; ``stacks`` are the protections that are accepted."""

    listen: Endpoint = ("127.0.0.1", 5683)
    stacks: tuple[str, ...] = ("coap-oscore",)

    @field_validator("stacks")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [slug for slug in value if slug not in STACKS]
        if unknown or not value:
            raise ValueError(f"name at least one of {', '.join(STACKS)}")
        return value

    @property
    def allows_unprotected(self) -> bool:
        """True when a stack without protection was asked for."""
        return any(not STACKS[slug].protects for slug in self.stacks)


class Dashboard(Section):
    """Where people look. Any address but loopback needs a certificate and its key (PEM files)."""

    listen: Endpoint = ("127.0.0.1", 8080)
    certificate: FilePath | None = None
    private_key: FilePath | None = None
    hosts: tuple[str, ...] = Field(default=(), description="names in browsers besides the certificate's")
    demand_password: bool = Field(default=True, description="who comes by a one-time link sets a password first")

    @model_validator(mode="after")
    def _tls_beyond_loopback(self) -> "Dashboard":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together; give both")
        try:
            loopback = ipaddress.ip_address(self.listen[0]).is_loopback
        except ValueError:
            loopback = self.listen[0] == "localhost"
        if not loopback and self.certificate is None:
            raise ValueError(
                f"the dashboard on {self.listen[0]} needs TLS; give certificate and private_key, or listen on 127.0.0.1"
            )
        return self


class CloudSettings(Program):
    """The whole of cloud.toml."""

    coap: Coap = Field(description="where gateways deliver")
    dashboard: Dashboard = Dashboard()
