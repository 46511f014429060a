"""Nonin pulse oximeters on a serial line: data format 7 (9600 8N1, three packets a second)."""
