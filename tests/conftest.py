"""Fixtures and settings that every room's tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("vitalgate", derandomize=True, deadline=None)
settings.load_profile("vitalgate")

CAPTURES = Path(os.environ.get("VITALGATE_CAPTURES") or Path(__file__).parents[2] / "shared" / "captures")


@pytest.fixture
def captures():
    """``captures(path)`` gives the bytes of a recording of a real device; a test without it skips (in CI: fails)."""

    def read(path: str) -> bytes:
        file = CAPTURES / path
        if not file.is_file():
            reason = f"no recording {file} (VITALGATE_CAPTURES names the folder)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return file.read_bytes()

    return read
