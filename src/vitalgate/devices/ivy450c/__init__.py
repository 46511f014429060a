"""Ivy 450C bedside monitor: its RS-232 output "ANSAR-B" (9600 8N1, one message a second)."""
