"""Logs: JSON lines, redacted, limited, private."""

import json
import stat

import structlog

from vitalgate.gateway import logs


def lines(tmp_path, write, level="info"):
    file = tmp_path / "program.log"
    logs.configure(level, file)
    try:
        write(logs.get("test"))
    finally:
        structlog.reset_defaults()
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def test_lines_are_json_with_time_level_room(tmp_path):
    file, (line,) = lines(tmp_path, lambda log: log.warning("line lost", port="/dev/ttyUSB0", count=3))
    assert line["event"] == "line lost"
    assert (line["level"], line["room"], line["port"], line["count"]) == ("warning", "test", "/dev/ttyUSB0", 3)
    assert line["time"].endswith("Z")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_secret_is_printed(tmp_path):
    def write(log):
        log.info(
            "x", patient="HED12", master_key="aa", sign_in_token="bb", raw=b"\x01secret", thing=object(), code="cc"
        )

    file, (line,) = lines(tmp_path, write)
    assert [line[name] for name in ("patient", "master_key", "sign_in_token", "code")] == [logs.REDACTED] * 4
    assert line["raw"] == "<bytes>"
    assert line["thing"] == "<object>"
    for word in ("HED12", "aa", "bb", "cc", "secret"):
        assert word not in file.read_text()


def test_a_field_cannot_break_the_line(tmp_path):
    _, (line,) = lines(tmp_path, lambda log: log.info("x", reason="a\n{}\x1b[31m" + "b" * 1000))
    assert line["reason"].startswith("a\n{}")
    assert len(line["reason"]) <= logs.MAX_FIELD + 1


def test_a_flood_of_one_event_is_cut_and_others_are_not(tmp_path):
    def write(log):
        for number in range(1000):
            log.info("flood", number=number)
        log.info("other")

    _, found = lines(tmp_path, write)
    assert [line["event"] for line in found].count("other") == 1
    assert 20 <= [line["event"] for line in found].count("flood") <= 60


def test_levels(tmp_path):
    _, found = lines(tmp_path, lambda log: (log.debug("no"), log.info("no"), log.error("yes")), level="error")
    assert [line["event"] for line in found] == ["yes"]
