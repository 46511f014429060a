"""vitalgate: a security gateway for legacy medical devices."""

__version__ = "0.1.0"
