"""A real Chromium that looks at a real ward: simulators, codecs, live board, store, pages, all in this process."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cloud"))

from bedside import Ward
from website import CHEAP

from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.roles import Role
from vitalgate.cloud.sessions import Sessions
from vitalgate.cloud.store.store import Store
from vitalgate.cloud.users import Users
from vitalgate.cloud.web.app import create_app
from vitalgate.cloud.web.server import serve
from vitalgate.cloud.web.settings import Services
from vitalgate.gateway.secrets import FixedKeys

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")
STALE_AFTER = 1.6


def missing(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium():
    """The browser; without one the tests skip with the reason (in CI: fail). Gone after each file of tests: while it
    runs, Playwright's event loop is this thread's, and other tests could not run theirs."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing(f"no browser: none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed (pip install vitalgate[dev])")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


class Hospital:
    """The parts behind the pages, and the pages; the server can be stopped and started again on its port."""

    def __init__(self, folder):
        self.store = Store(folder / "cloud.db", FixedKeys(os.urandom(32)))
        self.users = Users(self.store.database, self.store.audit, cost=CHEAP)
        self.sessions = Sessions(self.store.database, self.users, self.store.audit)
        self.board = LiveBoard(idle_after=lambda decoder: STALE_AFTER)
        self.ward = Ward(self.board)
        self.server = None
        self.start()

    def start(self):
        port = self.server.port if self.server else 0
        app = create_app(Services(self.board, self.store, self.users, self.sessions))
        self.server = serve(app, "127.0.0.1", port)
        self.origin = self.server.origin

    def close(self):
        self.server.stop()
        self.store.close()


@pytest.fixture
def hospital(tmp_path):
    """A hospital without devices; tests add beds to ``hospital.ward``."""
    made = Hospital(tmp_path)
    with made.ward:
        yield made
    made.close()


@pytest.fixture
def open_page(chromium, hospital):
    """``open_page(path, role, ...)`` gives a signed-in page. What it must never do is looked for at the end:
    ask another host, break the policy, report an error (``page.allowed`` takes patterns of errors that are meant)."""
    contexts, faults = [], []

    def open_(path="/", role=Role.CLINICIAN, *, width=1280, height=800, motion="no-preference"):
        context = chromium.new_context(viewport={"width": width, "height": height}, reduced_motion=motion)
        contexts.append(context)
        if role is not None:
            user = hospital.users.find(role.value) or hospital.users.create(
                role.value, role, password="correct horse battery"
            )
            token = hospital.sessions.create(user).token
            context.add_cookies([{"name": "vitalgate", "value": token, "url": hospital.origin}])
        page = context.new_page()
        page.allowed = []

        def fault(text):
            faults.append((page, text))

        page.on("console", lambda said: fault(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: fault(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(hospital.origin + "/") else fault(f"asked for {asked.url}"),
        )
        page.add_init_script("document.addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective))")  # fmt: skip  # noqa: E501
        page.goto(hospital.origin + path)
        return page

    yield open_
    unmeant = [text for page, text in faults if not any(re.search(pattern, text) for pattern in page.allowed)]
    for context in contexts:
        context.close()
    assert unmeant == []


@pytest.fixture(scope="session")
def artifacts():
    """The folder for pictures that people may look at after a run."""
    folder = Path(__file__).parents[1] / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
