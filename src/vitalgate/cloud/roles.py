"""Roles and what each may do: one table."""

import enum
from typing import Final


class Role(enum.Enum):
    """Who somebody is in the hospital."""

    VIEWER = "viewer"
    CLINICIAN = "clinician"
    TECHNICIAN = "technician"
    ADMINISTRATOR = "administrator"


class Permission(enum.Enum):
    """What may be done."""

    VIEW_BOARD = "view_board"
    VIEW_PATIENTS = "view_patients"
    VIEW_TECHNICAL = "view_technical"
    NAME_DEVICES = "name_devices"
    ENROL = "enrol"
    REVOKE = "revoke"
    VIEW_AUDIT = "view_audit"
    MANAGE_USERS = "manage_users"


PERMISSIONS: Final = {
    Role.VIEWER: frozenset({Permission.VIEW_BOARD}),
    Role.CLINICIAN: frozenset({Permission.VIEW_BOARD, Permission.VIEW_PATIENTS, Permission.NAME_DEVICES}),
    Role.TECHNICIAN: frozenset(
        {
            Permission.VIEW_BOARD,
            Permission.VIEW_TECHNICAL,
            Permission.NAME_DEVICES,
            Permission.ENROL,
            Permission.REVOKE,
        }
    ),
    Role.ADMINISTRATOR: frozenset(Permission),
}
