"""A small project to test in: a consent text, a guideline, people who agreed to both, and a campaign with items."""

from __future__ import annotations

from dataclasses import dataclass, field

from accord.feedback.store import (
    CampaignSettings,
    NewItem,
    Store,
    Submission,
    Task,
    add_campaign,
    add_consent_text,
    add_guideline,
    add_items,
    add_project,
    add_prompt,
    add_response,
    add_user,
    change_campaign,
    confirm_guideline,
    give_consent,
    next_task,
    set_role,
    submit,
)
from accord.records import Message

NOW = 1_790_000_000_000
MINUTE = 60_000


@dataclass
class World:
    store: Store
    project: str
    guideline: str
    campaign: str
    items: list[str]
    people: list[str] = field(default_factory=list)
    now: int = NOW

    def next(self, who: int | str = 0):
        person = self.people[who] if isinstance(who, int) else who
        return self.store.run(next_task, campaign_id=self.campaign, annotator_id=person, now=self.now)

    def submit(self, task: Task, who: int | str = 0, payload=None, **more):
        person = self.people[who] if isinstance(who, int) else who
        sent = Submission(
            assignment_id=task.assignment_id,
            annotator_id=person,
            revision=more.pop("revision", task.revision),
            payload=payload or ranks(task),
            **more,
        )
        return self.store.run(submit, sent, now=self.now)

    def add_person(self, name: str) -> str:
        def add(session):
            user = add_user(session, handle=name)
            set_role(session, user_id=user.id, project_id=self.project, role="annotator", actor_id=None)
            give_consent(session, user_id=user.id, project_id=self.project, now=self.now, uses=("train",))
            confirm_guideline(session, user_id=user.id, guideline_id=self.guideline)
            return user.id

        person = self.store.run(add)
        self.people.append(person)
        return person

    def add_item(self, text: str, kind: str = "normal", expected=None, responses=("one", "two"), **more) -> str:
        """`expected`: ranks by the text of the response."""

        def add(session):
            prompt = add_prompt(
                session, project_id=self.project, messages=(Message(role="user", content=text),), source="test"
            )
            ids = {
                said: add_response(session, prompt_id=prompt.id, text=said, origin="imported").id for said in responses
            }
            known = None if expected is None else {"ranks": {ids[said]: rank for said, rank in expected.items()}}
            new = NewItem(prompt_id=prompt.id, response_ids=tuple(ids.values()), kind=kind, expected=known, **more)
            return add_items(session, campaign_id=self.campaign, items=[new])[0]

        item = self.store.run(add)
        self.items.append(item)
        return item


def ranks(task: Task, best: str | None = None) -> dict[str, object]:
    """Rank responses by their text, or one of them first."""
    texts = sorted(task.responses, key=lambda shown: (shown.text != best, shown.text))
    return {"ranks": {shown.id: place for place, shown in enumerate(texts, 1)}}


def make_world(
    store: Store,
    *,
    items: int = 3,
    people: int = 1,
    overlap: int = 3,
    task_type: str = "rank",
    settings: CampaignSettings | None = None,
    state: str = "open",
    **project,
) -> World:
    def build(session):
        made = add_project(session, slug="p", **project)
        add_consent_text(session, project_id=made.id, markdown="We keep what you say.")
        guideline = add_guideline(session, project_id=made.id, markdown="Be fair.")
        campaign = add_campaign(
            session,
            project_id=made.id,
            name="c",
            task_type=task_type,
            guideline_id=guideline.id,
            overlap=overlap,
            settings=settings,
        )
        change_campaign(session, campaign_id=campaign.id, actor_id=None, state=state)
        return World(store=store, project=made.id, guideline=guideline.id, campaign=campaign.id, items=[])

    world = store.run(build)
    for number in range(items):
        world.add_item(f"question {number}")
    for number in range(people):
        world.add_person(f"person {number}")
    return world
