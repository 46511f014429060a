"""The one table of counters: what `/metrics`, `doctor` and the tests read.

A counter is a row of `COUNTERS`; counting something that has no row is a programming error and fails at once. A row
with a label is counted per label value (a reason, a device's key): never a value that an unauthenticated peer chooses.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counter:
    """One row: name in Prometheus form without the ``vitalgate_`` prefix, its meaning, and its one label or ''."""

    name: str
    meaning: str
    label: str = ""


COUNTERS: dict[str, Counter] = {
    row.name: row
    for row in (
        # coap
        Counter("coap_requests_received", "Requests that reached a resource or the application."),
        Counter("coap_responses_received", "Responses to our requests."),
        Counter("coap_requests_failed", "Our requests that ended without a response.", "reason"),
        Counter("coap_retransmissions", "Confirmable messages sent again."),
        Counter("coap_duplicates", "Messages that had been received before."),
        Counter("coap_pings", "Empty Confirmable messages answered with a Reset message."),
        Counter("coap_rejected", "Messages of peers that were wrong or unexpected.", "reason"),
        Counter("coap_errors_sent", "Error responses of the CoAP layer itself.", "code"),
        Counter("coap_responses_undelivered", "Responses not taken or never given.", "reason"),
        Counter("coap_limit_reached", "Times a table of the CoAP layer was full.", "limit"),
        Counter("coap_bodies_assembled", "Request bodies put together from blocks."),
        Counter("coap_bodies_refused", "Block-wise requests that could not go on.", "reason"),
        Counter("coap_transfers", "Block-wise transfers of our requests and their responses."),
        Counter("coap_transfers_restarted", "Those that had to start again.", "reason"),
        Counter("coap_observations_started", "Observations that clients began or renewed."),
        Counter("coap_observations_ended", "Observations that ended.", "reason"),
        Counter("coap_notifications_sent", "Notifications to observers."),
        Counter("coap_notifications_superseded", "Notifications sent again with newer state."),
        Counter("coap_notifications_received", "Notifications of resources that we observe."),
        Counter("coap_notifications_stale", "Of these, such as a newer one had overtaken."),
        Counter("coap_back_offs", "Requests not sent because the server had answered them 4.29."),
        Counter("coap_cache_answers", "Requests answered from the response cache, by what made it possible.", "how"),
        Counter("coap_proxy_requests", "Requests to a proxy, by what became of them.", "outcome"),
        Counter("coap_proxy_denied", "Requests that a proxy may not forward.", "reason"),
        Counter("coap_group_requests_received", "Requests that were sent to a group and are for us."),
        Counter("coap_group_requests_sent", "Our requests to groups."),
        Counter("coap_challenges", "Echo challenges sent to unverified addresses."),
        Counter("coap_addresses_verified", "Addresses that answered an Echo challenge."),
        # oscore
        Counter("oscore_requests_verified", "Protected requests that verified."),
        Counter("oscore_requests_refused", "Requests that did not verify, or came without protection.", "reason"),
        Counter("oscore_responses_ignored", "Responses to our requests that did not verify.", "reason"),
        Counter("oscore_errors_received", "Errors in clear in answer to protected requests of ours."),
        Counter("oscore_not_protected", "Messages of ours that could not be protected and were not sent.", "reason"),
        Counter("oscore_challenges", "Requests asked for Echo because the replay window was lost."),
        Counter("oscore_echoes_answered", "Requests of ours sent again with the Echo that a peer asked for."),
        # dtls
        Counter("dtls_handshakes_started", "Handshakes begun, by who began them.", "by"),
        Counter("dtls_handshakes_completed", "Handshakes completed, by how the peer was authenticated.", "mode"),
        Counter("dtls_handshakes_failed", "Handshakes that ended before they were complete.", "reason"),
        Counter("dtls_associations_ended", "Complete associations that ended.", "reason"),
        Counter("dtls_cookies_sent", "Hellos of unverified addresses answered with a cookie."),
        Counter("dtls_retransmissions", "Flights, or what was missing of them, sent again."),
        Counter("dtls_acks_sent", "ACKs of DTLS 1.3."),
        Counter("dtls_key_updates", "Keys changed within an association, by whose.", "whose"),
        Counter("dtls_discarded", "Datagrams and records dropped without a word.", "reason"),
        Counter("dtls_alerts_received", "Alerts of peers.", "alert"),
        Counter("dtls_alerts_sent", "Alerts of ours.", "alert"),
        Counter("dtls_moved", "Peers whose newest record came from another address."),
        Counter("dtls_peers_silent", "Associations given up because the peer answered nothing any more."),
        Counter("dtls_not_sent", "Data for peers without a complete association, which was not sent."),
        Counter("dtls_limit_reached", "Times a table of the DTLS layer was full.", "limit"),
        # ipsec
        Counter("ipsec_protected", "Packets protected by SAs."),
        Counter("ipsec_opened", "Packets verified and opened."),
        Counter("ipsec_bypassed", "Packets that policy lets pass as they are."),
        Counter("ipsec_dropped", "Packets dropped.", "reason"),
        Counter("ipsec_audit_suppressed", "Auditable events beyond the rate limit.", "reason"),
        Counter("ipsec_expired", "Limits of SAs that were reached.", "which"),
        Counter("ipsec_fragmented", "Packets cut because of the path's MTU.", "when"),
        Counter("ipsec_path_mtu_lowered", "Times that ICMP told of a smaller path MTU."),
        Counter("ipsec_keepalives", "NAT keepalives.", "direction"),
        Counter("ipsec_acquires", "Requests for SAs that policy needs."),
        # net
        Counter("net_datagrams_received", "Datagrams read from UDP sockets."),
        Counter("net_datagrams_sent", "Datagrams the kernel took from us."),
        Counter("net_receive_failed", "Reads of a UDP socket that the kernel answered with an error."),
        Counter("net_send_failed", "Datagrams the kernel refused to take.", "reason"),
        Counter("net_lines_opened", "Serial lines opened."),
        Counter("net_lines_lost", "Serial lines that went away while open."),
        Counter("net_line_write_dropped", "Bytes for a serial device that its line did not take."),
        Counter("net_connections_accepted", "TCP connections of devices accepted."),
        Counter("net_connections_refused", "TCP connections of devices closed by us.", "reason"),
        # devices
        Counter("device_frames", "Whole frames of devices decoded.", "kind"),
        Counter("device_observations", "Observations in decoded frames.", "kind"),
        Counter("device_samples", "Waveform samples in decoded frames.", "kind"),
        Counter("device_bytes_discarded", "Bytes from devices that were no frame, by kind/reason.", "reason"),
        Counter("device_events_dropped", "Events of decoders that nobody took in time.", "kind"),
        Counter("device_hl7_acknowledgements", "Acknowledgements of HL7 messages, by their code.", "code"),
        Counter("device_hl7_unanswered", "Answers to HL7 messages that could not be given.", "reason"),
        Counter("device_hl7_warnings", "What was forgiven in reading HL7 messages, once a message.", "warning"),
        # gateway
        Counter("gateway_spool_openings", "Openings of the spool, by how it was found.", "cause"),
        Counter("gateway_spool_commits", "Group commits of the spool."),
        Counter("gateway_spool_commit_failed", "Reads and commits of the spool that the disk refused.", "reason"),
        Counter("gateway_spool_entries", "Entries committed to the spool."),
        Counter("gateway_spool_released", "Entries let go because the cloud holds them."),
        Counter("gateway_spool_dropped", "Entries dropped with a numbered gap.", "cause"),
        Counter("gateway_spool_full", "Frames of two-way devices not taken because the spool is full or failing."),
        Counter("gateway_spool_repeated", "Repeated messages of two-way devices that were committed before."),
        Counter("gateway_spool_refused", "Frames and entries that could not or may not be kept.", "reason"),
        Counter("gateway_spool_unreadable", "Entries of the spool that did not open."),
        Counter("gateway_spool_mark_failed", "Writes of the mark beside the spool that the disk refused."),
        Counter("gateway_uplink_posts", "Deliveries sent, retransmissions not counted."),
        Counter("gateway_uplink_payload_bytes", "Bytes of payload in these POSTs."),
        Counter("gateway_uplink_answers", "Answers of the cloud to deliveries.", "code"),
        Counter("gateway_uplink_failed", "Deliveries that were not taken and are sent again.", "reason"),
        Counter("gateway_uplink_preempted", "Deliveries taken back for an alarm."),
        Counter("gateway_lines_refused", "Lines of devices beyond the bound of their port."),
        Counter("gateway_device_bytes_dropped", "Bytes of devices dropped before decoding.", "reason"),
        Counter("gateway_frames", "Frames of enrolled devices, by what the spool said.", "outcome"),
        Counter("gateway_frames_dropped", "Frames of devices not looked at.", "reason"),
        Counter("gateway_quarantined", "Frames of devices that are not enrolled where they speak.", "reason"),
        Counter("gateway_device_gaps", "Gaps recorded for bytes of devices that were lost.", "cause"),
        Counter("gateway_devices_silent", "Times that an enrolled device fell silent."),
        Counter("gateway_clock_steps", "Jumps of the wall clock."),
        Counter(
            "gateway_enrolment_messages", "Answers of the cloud on /enroll and /rekey, and what they led to.", "outcome"
        ),
        Counter("gateway_rekeys", "Runs for fresh session keys.", "outcome"),
        # cloud
        Counter("cloud_contexts_left_out", "Security contexts that found no room beside those in service."),
        Counter("cloud_deliveries", "Requests on /ingest, by what became of them.", "outcome"),
        Counter("cloud_unprotected_deliveries", "Deliveries taken from gateways without any security."),
        Counter("cloud_commits", "Transactions that made deliveries durable."),
        Counter(
            "cloud_store_unavailable", "Times the store could not commit, so that nothing was acknowledged.", "reason"
        ),
        Counter("cloud_entries_stored", "Entries made durable, each once."),
        Counter("cloud_entries_duplicate", "Entries that came again after they were durable."),
        Counter("cloud_observations_stored", "Observations in entries made durable."),
        Counter("cloud_samples_stored", "Waveform samples in entries made durable."),
        Counter("cloud_enrolment_messages", "Messages on /enroll and /rekey, by what became of them.", "outcome"),
        Counter("cloud_enrolment_refresh_failed", "Times the store could not be asked for changes of gateways' keys."),
        Counter(
            "cloud_enrolment_contexts_unusable", "Stored contexts deleted because their sequence numbers are gone."
        ),
        Counter("cloud_web_requests", "Requests to the pages answered, by class of status.", "status"),
        Counter("cloud_web_refused", "Requests to the pages refused before their handler.", "reason"),
        Counter("cloud_web_messages", "Messages sent to open screens."),
    )
}


class Counters(dict[str, int]):
    """Counts by ``name`` or ``name{value}``; reading what was never counted gives 0.

    Engines take one at construction (or make their own) and count with :meth:`add`.
    """

    __slots__ = ()

    def __missing__(self, key: str) -> int:
        name, _, rest = key.partition("{")
        row = COUNTERS[name]  # KeyError: a counter without a row
        if bool(row.label) != bool(rest):
            raise KeyError(f"counter {name!r} is counted {'with' if row.label else 'without'} a label")
        return 0

    def add(self, name: str, label: str = "", by: int = 1) -> None:
        """Count ``by`` more of ``name`` (with its label's value where the row has a label)."""
        self[f"{name}{{{label}}}" if label else name] += by

    def total(self, name: str) -> int:
        """The sum over all label values of ``name``."""
        return sum(count for key, count in self.items() if key.partition("{")[0] == name)
