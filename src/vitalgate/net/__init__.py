"""Drivers that turn engines: asyncio UDP, serial, TCP, and the virtual network in virtual time."""
