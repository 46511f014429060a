"""`python -m vitalgate` is the `vitalgate` command."""

from vitalgate.cli import main

main()
