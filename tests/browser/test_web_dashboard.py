"""What a nurse sees: the dashboard in a real browser, fed by simulated devices that play real recordings."""

import itertools
import time
from decimal import Decimal

import pytest

from vitalgate.cloud.roles import Role
from vitalgate.cloud.web.admin import sign_in_address
from vitalgate.vitals.observation import Alarm, Observation, Priority, Status

pytestmark = pytest.mark.browser

IVY, NONIN = "urn:dev:ops:32473-ivy-1", "urn:dev:mac:001c05fffe000001"
INK = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let ink = 0, sum = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i] > 40) { ink += 1; sum = (sum * 31 + i) % 2147483647; }
  return [ink, sum];
}"""
PEN = """canvas => new Promise(resolve => requestAnimationFrame(() => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data, width, height } = copy.getImageData(0, 0, canvas.width, canvas.height);
  const inked = x => { for (let y = 0; y < height; y += 1) if (data[4 * (y * width + x) + 3] > 40) return true; };
  let best = 0, end = 0;
  for (let x = 0, run = 0; x < width; x += 1) {
    run = inked(x) ? 0 : run + 1;
    if (run > best) [best, end] = [run, x];
  }
  resolve([end - best, width, performance.now() / 1000]);
}))"""
"""Where the pen is (the start of the widest blank, that is of the erase bar), the width, and when."""


def numeric(metric, value, **more):
    return Observation(metric, value, "/min", time.time(), b"h" * 16, "ivy450c/1", **more)


def show(hospital, *observations, device=IVY, security="coap-oscore", gateway="ward-3"):
    hospital.board.publish(gateway, security, device, observations, time.time())


def until(page, condition):
    """Wait for a condition of the page; Playwright's own wait needs eval, which the page's policy forbids."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it never came")


def test_signs_in_by_a_link_and_watches_a_ward(hospital, open_page, artifacts):
    now = time.monotonic()
    for slug, device, label in (("ivy450c", IVY, "Bed 1"), ("nonin", NONIN, "Bed 2")):
        hospital.ward.add(slug, device, label=label, location="Ward 3", start=now - 10)
    page = open_page("/", role=None)
    assert page.url.startswith(hospital.origin + "/sign-in")
    page.goto(sign_in_address(hospital.origin, hospital.users.first_link()))
    assert page.url == hospital.origin + "/link"  # the secret part is out of the address
    page.click("#link-button")
    page.wait_for_url("**/password")
    page.fill("[name=password]", "correct horse battery")
    page.fill("[name=again]", "correct horse battery")
    page.get_by_role("button", name="Set password").click()
    page.wait_for_url(hospital.origin + "/")

    tile = page.locator(f"[data-device='{IVY}']")
    value = tile.locator("[data-group=ecg] .slot[data-lead] .slot-value")
    value.wait_for()
    assert tile.get_by_role("heading").inner_text() == "Bed 1"
    assert "Demo data" in tile.locator(".tile-marks").inner_text()
    assert "OSCORE" in tile.locator(".security").inner_text()
    assert page.get_by_role("contentinfo").inner_text() == "Information only – not a primary alarm system"

    first = value.inner_text()
    assert 20 < int(first) < 250
    canvas = tile.locator("[data-group=ecg] canvas")
    until(page, lambda: page.locator("canvas").count() >= 5)
    seen = []
    for _ in range(6):  # the trace moves from look to look
        page.wait_for_timeout(250)
        seen.append(canvas.evaluate(INK))
    assert all(ink > 300 for ink, _ in seen)
    assert len({shape for _, shape in seen}) == len(seen)
    until(page, lambda: value.inner_text() not in ("", first))
    page.screenshot(path=artifacts / "dashboard.png")


def test_silence_is_seen_and_heard_of_again(hospital, open_page, artifacts):
    bed = hospital.ward.add("ivy450c", IVY, label="Bed 1")
    hospital.ward.add("nonin", NONIN, label="Bed 2")
    page = open_page()
    tile = page.locator(f"[data-device='{IVY}']")
    page.wait_for_selector(f"[data-device='{IVY}'] canvas")
    assert tile.get_attribute("data-stale") is None
    bed.silent = True
    page.wait_for_selector(f"[data-device='{IVY}'][data-stale]", timeout=8000)
    assert "Stale: no new data for" in tile.locator("[data-mark=stale]").inner_text()
    line = tile.locator(".slot[data-lead] .slot-value").first.evaluate("e => getComputedStyle(e).textDecorationLine")
    assert line == "line-through"
    assert page.locator(f"[data-device='{NONIN}']").get_attribute("data-stale") is None
    canvas = tile.locator("[data-group=ecg] canvas")
    page.wait_for_selector(f"[data-device='{IVY}'] .trace[data-dry]")
    still = canvas.evaluate(INK)
    page.wait_for_timeout(200)
    assert canvas.evaluate(INK) == still  # an old trace does not go on moving
    page.screenshot(path=artifacts / "stale.png")
    bed.silent = False
    page.wait_for_selector(f"[data-device='{IVY}']:not([data-stale])")


def test_a_dead_server_is_said_aloud_and_its_return_is_noticed(hospital, open_page, artifacts):
    hospital.ward.add("ivy450c", IVY, label="Bed 1")
    page = open_page()
    page.allowed = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "503"]
    page.wait_for_selector("[data-link=live]")
    page.wait_for_selector(f"[data-device='{IVY}'] canvas")
    assert page.locator("#lost").is_hidden()
    hospital.server.stop()
    page.wait_for_selector("#lost:not([hidden])", timeout=8000)
    assert "CONNECTION LOST" in page.get_by_role("alert").first.inner_text()
    assert page.locator(f"[data-device='{IVY}']").get_attribute("data-stale") == ""
    assert "Not live" in page.locator(f"[data-device='{IVY}'] .tile-marks").inner_text()
    page.screenshot(path=artifacts / "lost.png")
    hospital.start()
    page.wait_for_selector("#lost", state="hidden", timeout=10_000)
    page.wait_for_selector(f"[data-device='{IVY}']:not([data-stale])")


def test_alarms_have_their_colour_rate_and_sign(hospital, open_page, artifacts):
    def publish():
        show(hospital, numeric(147842, Decimal(171), alarm=Alarm("HR HIGH", Priority.HIGH)))
        show(hospital, numeric(150456, Decimal(88), alarm=Alarm("SpO2 LOW", Priority.MEDIUM)), device=NONIN)
        show(hospital, numeric(151562, None, alarm=Alarm("CHECK SENSOR", Priority.LOW)), device="urn:dev:x")

    publish()
    page = open_page()
    look = "e => { const s = getComputedStyle(e); return [s.animationName, s.animationDuration]; }"
    expected = (
        (IVY, "high", "!!!", 1.4, 2.8),
        (NONIN, "medium", "!!", 0.4, 0.8),
        ("urn:dev:x", "low", "!", None, None),
    )
    for device, priority, sign, low, high in expected:
        alarm = page.locator(f"[data-device='{device}'] li[data-alarm={priority}]")
        alarm.wait_for()
        assert alarm.locator(".alarm-sign").inner_text() == sign
        for _ in range(20):
            publish()  # on a slow machine the tile is stale by now, and what is stale does not flash
            name, period = alarm.evaluate(look)
            if name != "none" or low is None:
                break
        if low is None:
            assert name == "none"
        else:
            assert low <= 1 / float(period.removesuffix("s")) <= high
    slot = page.locator(f"[data-device='{IVY}'] .slot[data-alarm=high]")
    assert slot.locator(".slot-value").inner_text() == "171"
    publish()
    page.screenshot(path=artifacts / "alarms.png")
    calm = open_page(motion="reduce")
    alarm = calm.locator(f"[data-device='{IVY}'] li[data-alarm=high]")
    alarm.wait_for()
    assert alarm.evaluate(look)[0] == "none"
    show(hospital, numeric(147842, Decimal(80)))
    page.wait_for_selector(f"[data-device='{IVY}'] li[data-alarm]", state="detached")


def test_unprotected_unsure_and_unspeakable_are_shown_for_what_they_are(hospital, open_page):
    evil = "<img src=//evil.example/x onerror=alert(1)>"
    show(
        hospital,
        numeric(147842, Decimal("72.50"), status=Status.QUESTIONABLE),
        numeric(150021, Decimal(121)),
        numeric(150022, Decimal(80)),
        numeric(0, evil, label=evil, patient=evil, location=evil, alarm=Alarm(evil, Priority.INFORMATION)),
        security="coap-nosec",
    )
    hospital.board.name(IVY, evil)
    hospital.board.add_gap("ward-3", IVY, "device", "unplugged", time.time() - 60, time.time(), 0)
    hospital.board.quarantined("ward-3", kind="nonin", port="p", serial="s", frames=1, first=1.0, last=2.0)
    page = open_page(role=Role.ADMINISTRATOR)
    page.wait_for_selector("#unprotected:not([hidden])")
    assert page.locator("#unprotected").inner_text().startswith("UNPROTECTED: data of 1 device")
    tile = page.locator(f"[data-device='{IVY}']")
    assert tile.locator(".security").inner_text() == "UNPROTECTED"
    assert tile.get_by_role("heading").inner_text() == evil
    assert page.locator("main img").count() == 0
    doubtful = tile.locator(".slot[data-doubtful]")
    assert doubtful.locator(".slot-value").inner_text() == "72.50"
    assert "questionable" in doubtful.get_attribute("aria-label")
    assert tile.locator(".slot[data-wide] .slot-value").inner_text() == "121/80"
    assert tile.locator("[data-mark=gap]").is_visible()
    assert page.locator("#count-quarantine").inner_text() == "1"
    assert page.locator("#count-gaps").inner_text() == "1"
    page.click(".tile-name")
    page.wait_for_url("**/devices/**")
    assert page.get_by_role("heading").first.inner_text() == evil


def test_nothing_runs_over_the_edge(hospital, open_page, artifacts):
    now = time.monotonic()
    for number in range(8):
        hospital.ward.add(("ivy450c", "nonin")[number % 2], f"urn:dev:ops:32473-{number}", label=f"Bed {number + 1}", start=now - 5)  # fmt: skip  # noqa: E501
    for width, height in ((1280, 800), (390, 844)):
        page = open_page(width=width, height=height)
        until(page, lambda: page.locator(".tile canvas").count() >= 8)  # noqa: B023 - called at once
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        over = page.evaluate(
            """() => [...document.querySelectorAll('.slot[data-lead]:not([data-void])')].flatMap(slot => {
              const box = slot.getBoundingClientRect(), value = slot.querySelector('.slot-value').getBoundingClientRect();
              return value.left < box.left - 1 || value.right > box.right + 1 || value.bottom > box.bottom + 6
                ? [slot.getAttribute('aria-label')] : [];
            })"""  # noqa: E501
        )
        assert over == []
        page.screenshot(path=artifacts / f"ward-{width}.png")


PLAY = """async ({ rate, lump, seconds, hole }) => {
  const { Playout } = await import('/static/js/playout.js');
  const playout = new Playout(rate);
  const out = [], took = [];
  let sent = 0, due = 0;
  for (let now = 0; now < seconds; now += 1 / 60) {
    if (now >= due) {
      const count = Math.round(lump * rate);
      const samples = Array.from({ length: count }, (_, at) => sent + at);
      if (!(hole && sent >= hole[0] * rate && sent < hole[1] * rate)) playout.push(sent, samples, now);
      sent += count;
      due += lump;
    }
    const taken = playout.take(1 / 60);
    out.push(...taken);
    took.push(taken.length);
  }
  return { out, took, sent, delay: playout.delay, missed: playout.missed };
}"""


def played(page, **how):
    return page.evaluate(PLAY, {"rate": 100, "lump": 1.0, "seconds": 20, "hole": None} | how)


def test_lumps_arrive_and_an_even_trace_leaves(hospital, open_page):
    page = open_page("/gaps")
    for lump in (0.1, 0.33, 1.0, 3.0):
        run = played(page, lump=lump, seconds=30)
        late = run["took"][600:]  # ten seconds in
        assert max(late) <= 3, lump  # 100 samples a second, 60 frames a second, a little faster or slower
        assert late.count(0) < len(late) * 0.02, lump
        numbers = run["out"]
        assert all(after - before == 1 for before, after in itertools.pairwise(numbers)), lump  # none lost, none twice
        waited = run["sent"] - numbers[-1]
        assert waited <= (run["delay"] + lump + 0.6) * 100, lump


def test_a_hole_is_drawn_as_a_hole(hospital, open_page):
    run = played(open_page("/gaps"), hole=[8, 10])
    numbers = run["out"]
    assert run["missed"] == 200
    assert numbers.count(None) == 200
    kept = [number for number in numbers if number is not None]
    assert kept == sorted(set(kept))
    assert not any(800 <= number < 1000 for number in kept)


def test_a_trace_is_swept_at_25_millimetres_a_second(hospital, open_page):
    hospital.ward.add("ivy450c", IVY, start=time.monotonic() - 10, lag=0.7)  # a bursty link
    page = open_page()
    canvas = page.locator("[data-group=ecg] canvas")
    canvas.wait_for()
    page.wait_for_timeout(500)
    start, width, then = canvas.evaluate(PEN)
    page.wait_for_timeout(2000)
    end, _, now = canvas.evaluate(PEN)
    speed = (end - start) % width / (now - then)
    assert 0.8 < speed / (25 * 96 / 25.4) < 1.2
