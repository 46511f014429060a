"""Fixtures of the cloud's tests; what they are made of is in `cloudkit`."""

from cloudkit import clock, keys, location, spool, store

__all__ = ["clock", "keys", "location", "spool", "store"]
