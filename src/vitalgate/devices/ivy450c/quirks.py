"""What the Ivy 450C's words mean: a table, so that a new text is a new row.

The monitor's protocol has no published list of texts. Rows marked *seen* stand in a recorded transmission; the others
are words that bedside monitors of this class show. A text that no row names is taken for a patient's alarm of medium
priority: what is not understood is never played down.
"""

import re
from dataclasses import dataclass

from vitalgate.vitals.observation import Priority, Status


@dataclass(frozen=True, slots=True)
class Text:
    """A text that begins with ``start``: its priority beside a value, its priority without one, and its status."""

    start: str
    priority: Priority
    without_value: Priority
    status: Status = Status.NONE


_STATE = (Priority.INFORMATION, Priority.INFORMATION)
TEXTS: tuple[Text, ...] = (
    # Seen: beside a rate of 35/min it stands for the whole recording while the wave breathes at just that rate and the
    # number never counts up, so it then names the apnoea delay that is set. Without a rate it is the alarm.
    Text("APNEA", Priority.INFORMATION, Priority.HIGH),
    # Seen: a pressure channel with nothing attached. The state of the equipment, not of the patient.
    Text("NO TRANSDUCER", *_STATE, Status.NOT_PERFORMED),
    Text("NO SENSOR", *_STATE, Status.NOT_PERFORMED),
    Text("NO PROBE", *_STATE, Status.NOT_PERFORMED),
    Text("SEARCH", *_STATE, Status.EARLY),
    Text("ZERO", *_STATE, Status.CALIBRATING),
    Text("LEAD", Priority.LOW, Priority.LOW, Status.QUESTIONABLE),
    Text("CHECK", Priority.LOW, Priority.LOW, Status.QUESTIONABLE),
    Text("SENSOR OFF", Priority.LOW, Priority.LOW, Status.QUESTIONABLE),
    Text("ASYSTOLE", Priority.HIGH, Priority.HIGH),
)
UNKNOWN_TEXT = Text("", Priority.MEDIUM, Priority.MEDIUM)


def text_row(text: str) -> Text:
    """The row for an alarm or status text."""
    return next((row for row in TEXTS if text.startswith(row.start)), UNKNOWN_TEXT)


NO_VALUE = frozenset({"", "-", "--", "---"})
"""Fields that say "no reading"; the recording has only the empty one."""

ECG_LEAD = re.compile(r"ECG-(\w+)-(\w+)\Z")
"""The lead and filter on the HR line (seen: ``ECG-II-DIAG``)."""
LEADS = {"I": 131329, "II": 131330, "III": 131389}
"""ECG wave metric by lead; any other lead is the generic ECG (131328)."""
