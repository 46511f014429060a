"""The gateway: identity and enrolment, quarantine, spool, uplink, command policy."""
