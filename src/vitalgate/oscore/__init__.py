"""OSCORE (RFC 8613): CoAP messages protected end to end, as an engine round a CoAP endpoint."""
