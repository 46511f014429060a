"""The pages served for real on loopback, and visitors who fill in forms as browsers do."""

import re

import httpx
import pytest

from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.passwords import Cost
from vitalgate.cloud.roles import Role
from vitalgate.cloud.sessions import Sessions
from vitalgate.cloud.users import Users
from vitalgate.cloud.web.app import create_app
from vitalgate.cloud.web.server import serve
from vitalgate.cloud.web.settings import Services, WebSettings

CHEAP = Cost(log_n=4, r=1, p=1)
PASSWORD = "correct horse battery"


class Visitor(httpx.Client):
    """A browser without scripts: keeps cookies, repeats the hidden fields of the form it was shown."""

    def __init__(self, origin, **how):
        super().__init__(base_url=origin, follow_redirects=False, timeout=10, trust_env=False, **how)

    def csrf(self, page):
        return re.search(r'name="csrf" value="([^"]*)"', self.get(page).text)[1]

    def fill(self, page, target=None, **fields):
        """Open ``page`` and send its form to ``target`` (by default the page itself)."""
        return self.post(target or page, data={"csrf": self.csrf(page), **fields})

    def sign_in(self, name, password=PASSWORD):
        return self.fill("/sign-in", name=name, password=password)


class Site:
    """A store, its people, a board, and the pages over them."""

    def __init__(self, store, clock, settings=None, **services):
        self.store, self.clock = store, clock
        self.board = LiveBoard(wall=clock, clock=clock)
        self.users = Users(store.database, store.audit, cost=CHEAP)
        self.sessions = Sessions(store.database, self.users, store.audit)
        self.app = create_app(
            Services(self.board, store, self.users, self.sessions, **services), settings or WebSettings()
        )
        self.server = serve(self.app)
        self.origin = self.server.origin
        self.visitors = []

    @property
    def counters(self):
        return self.app.state.web.counters

    def visitor(self, **how):
        made = Visitor(self.origin, **how)
        self.visitors.append(made)
        return made

    def add(self, name, role=Role.VIEWER, password=PASSWORD):
        return self.users.create(name, role, password=password)

    def signed_in(self, name="somebody", role=Role.VIEWER):
        """A visitor with a session of a user of this role."""
        user = self.users.find(name) or self.add(name, role)
        visitor = self.visitor()
        visitor.cookies.set("vitalgate", self.sessions.create(user).token)
        return visitor

    def close(self):
        for visitor in self.visitors:
            visitor.close()
        self.server.stop()


@pytest.fixture
def make_site(store, clock):
    """``make_site(settings, **services)`` serves pages over the test's store."""
    made = []

    def make(settings=None, **services):
        made.append(Site(store, clock, settings, **services))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site):
    return make_site()
