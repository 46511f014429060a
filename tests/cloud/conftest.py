"""Fixtures of the cloud's tests; what they are made of is in `cloudkit` and `website`."""

from cloudkit import clock, keys, location, spool, store
from website import make_site, site

__all__ = ["clock", "keys", "location", "make_site", "site", "spool", "store"]
