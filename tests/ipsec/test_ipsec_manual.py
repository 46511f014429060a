"""What manual keys may be used for."""

import pytest
from ipsec_packets import parameters

from vitalgate.ip.packet import AH
from vitalgate.ipsec.algorithms import DEFAULT_MANUAL, SuiteError, all_suites
from vitalgate.ipsec.manual import manual


@pytest.mark.parametrize("chosen", all_suites(), ids=lambda chosen: chosen.name)
def test_suites_that_a_repeated_number_breaks(chosen):
    given = parameters(chosen)
    if not chosen.encryption.counts:
        assert manual(given) is given
        return
    with pytest.raises(SuiteError):
        manual(given)
    with pytest.raises(SuiteError):
        manual(given, allow_manual_aead=True)
    if chosen.encryption.implicit_iv:
        with pytest.raises(SuiteError, match="implicit"):
            manual(given, allow_manual_aead=True, reserve=lambda number: True)
    else:
        assert manual(given, allow_manual_aead=True, reserve=lambda number: True) is given


def test_the_default_and_ah_need_nothing():
    assert manual(parameters(DEFAULT_MANUAL))
    assert manual(parameters("hmac-sha2-256-128", protocol=AH))
    with pytest.raises(SuiteError, match="extended"):
        manual(parameters(DEFAULT_MANUAL, esn=True))
