"""Legacy medical devices: one package a protocol, each a pure codec, its quirks and a simulator."""
