"""A process that commits is killed outright, again and again: what it acknowledged is there, once."""

import subprocess
import sys
from pathlib import Path

from cloudkit import Spool

from vitalgate.cloud.store.commit import Delivery
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.secrets import FixedKeys

SECRET = bytes(range(32))
EPOCH = 0xABCDEF
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from cloudkit import Clock, Spool
from vitalgate.cloud.store.commit import Delivery
from vitalgate.gateway.secrets import FixedKeys
from vitalgate.cloud.store.store import Store

store = Store(sys.argv[2], FixedKeys(bytes(range(32))))
spool = Spool(int(sys.argv[3]), Clock())
while True:
    batch = [Delivery("gw-1", (spool.numerics(), spool.wave())) for _ in range(3)]
    for delivery, outcome in zip(batch, store.commit(batch)):
        assert outcome.refusal is None
        print(delivery.entries[-1].sequence, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_stored_once(tmp_path, clock):
    location = tmp_path / "store.db"
    resent = 0
    for after in (1, 4, 17, 40):  # acknowledgements to wait for before the kill
        command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(location), str(EPOCH)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(after)]
            writer.kill()
            # What it still said before it died counts too; a half line was never said.
            acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
        store = Store(location, FixedKeys(SECRET), wall=clock)
        hashes = next(iter(store.read.frame_hashes().values()))
        assert set(hashes.values()) == {1}
        assert len(hashes) >= max(acknowledged)
        account = store.read.accounts()[0]
        assert account.contiguous == account.stored == account.highest >= max(acknowledged)
        # Everything is sent again, as a gateway does that heard no answer: nothing is doubled.
        spool = Spool(EPOCH, clock)
        again = [Delivery("gw-1", (spool.numerics(), spool.wave())) for _ in range(max(acknowledged) // 2 + 3)]
        outcomes = store.commit(again)
        resent += sum(outcome.duplicates for outcome in outcomes)
        assert sum(outcome.duplicates for outcome in outcomes) >= max(acknowledged)
        assert set(next(iter(store.read.frame_hashes().values())).values()) == {1}
        store.close()
    assert resent > 100
