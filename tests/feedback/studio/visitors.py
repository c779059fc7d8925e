"""People who use a studio by plain forms, as a browser without scripts does."""

from __future__ import annotations

import re
from html import unescape

from fastapi.testclient import TestClient

from accord.feedback.store import Store, add_user, set_role, start_session
from accord.feedback.store.tables import Campaign, Guideline
from accord.feedback.studio import StudioConfig, create_app
from accord.pipelines.feedback_data import import_upload
from feedback.worlds import NOW, World, make_world

HOST = "http://studio.test"


class Visitor:
    """A browser with a session. `get` and `post` follow redirects; `post` adds the token of the session."""

    def __init__(self, app, user_id: str | None = None, session: tuple[str, str] | None = None):
        self.client = TestClient(app, base_url=HOST, raise_server_exceptions=False)
        self.user_id, self.csrf = user_id, session[1] if session else ""
        if session:
            self.client.cookies.set("session", session[0])

    def get(self, path: str, **more):
        return self.client.get(path, **more)

    def post(self, path: str, data=None, *, csrf: str | None = None, **more):
        given = {"csrf": self.csrf if csrf is None else csrf, **(data or {})}
        return self.client.post(path, data=given, headers={"Origin": HOST, **more.pop("headers", {})}, **more)


class Place:
    """A studio with a project, a campaign and people. Time stands still unless `now` is set."""

    def __init__(self, store: Store, **world):
        self.store, self.now = store, NOW
        self.models: dict[str, object] = {}
        self.app = create_app(
            store,
            StudioConfig(requests_per_minute=10_000),
            models=self.models,
            importer=import_upload,
            clock=lambda: self.now,
        )
        self.world: World | None = None

    def open(self, **settings) -> World:
        self.world = make_world(self.store, **settings)
        return self.world

    def enter(self, user_id: str) -> Visitor:
        return Visitor(self.app, user_id, self.store.run(start_session, user_id=user_id, now=self.now))

    def person(self, who: int = 0) -> Visitor:
        return self.enter(self.world.people[who])

    def someone(self, role: str | None, *, site: bool = False, name: str | None = None) -> Visitor:
        """A new person with a role in the project, who has agreed to nothing."""

        def add(session):
            user = add_user(session, handle=name or f"{role} {site}", is_admin=site)
            if role is not None:
                set_role(session, user_id=user.id, project_id=self.world.project, role=role, actor_id=None)
            return user.id

        return self.enter(self.store.run(add))

    def guideline(self) -> Guideline:
        return self.store.read(lambda s: s.get(Guideline, s.get(Campaign, self.world.campaign).guideline_id))

    @property
    def task_page(self) -> str:
        return f"/c/{self.world.campaign}/task"


def assignment(page) -> str:
    """Of the task on a page."""
    return re.search(r'data-assignment="([^"]+)"', page.text)[1]


def shown(page) -> dict[str, str]:
    """Letter -> response id, in the order of the page."""
    return {letter: one for one, letter in re.findall(r'data-response="([^"]+)" data-letter="(\w+)"', page.text)}


def text_of(page) -> str:
    """What a person reads."""
    return unescape(re.sub(r"<[^>]+>", " ", page.text))
