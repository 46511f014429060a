"""A program's folders: who runs in them, and what a start that is refused leaves behind."""

import os

import pytest

from vitalgate.gateway.home import SPOOL, Home, HomeError
from vitalgate.gateway.link import NotEnrolledError
from vitalgate.gateway.runtime import GatewayRuntime
from vitalgate.gateway.settings import GatewaySettings
from vitalgate.oscore.errors import SequenceError


@pytest.fixture
def settings(tmp_path):
    return GatewaySettings.model_validate(
        {
            "storage": {"data": str(tmp_path / "data"), "state": str(tmp_path / "state")},
            "master_key": {"file": str(tmp_path / "keys" / "master.key")},
            "uplink": {"cloud": "127.0.0.1:5683"},
        }
    )


@pytest.fixture
def home(settings):
    return Home(settings.storage, settings.master_key)


def test_a_second_program_is_told_which_process_to_stop(home):
    with home.sequences():
        with pytest.raises(SequenceError, match="another process"):  # as long as it has not said that it runs
            home.sequences()
        home.announce({})
        with pytest.raises(HomeError, match=f"process {os.getpid()} .* stop that one first"):
            home.sequences()
        home.retire()
    home.sequences().close()


def test_a_gateway_that_is_not_enrolled_opens_no_spool(settings, home):
    # An opening that nothing closes would be told as a crash by the next.
    with pytest.raises(NotEnrolledError, match="vitalgate enroll gateway"):
        GatewayRuntime(settings, home)
    assert not (home.data / SPOOL).exists()
    home.sequences().close()


def test_folders_that_others_may_enter_are_refused(settings, home):
    home.data.chmod(0o755)
    with pytest.raises(HomeError, match="chmod 700"):
        Home(settings.storage, settings.master_key)
