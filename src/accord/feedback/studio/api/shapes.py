"""What comes in and what goes out of the API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from accord.records import Text

Id = Annotated[str, Field(max_length=36, pattern=r"^[0-9a-f-]+$")]
Words = Annotated[Text, Field(min_length=1, max_length=100_000)]
Slug = Annotated[Text, Field(min_length=1, max_length=60)]
Payload = dict[str, Any]
TaskType = Literal["demonstrate", "rank", "pairwise", "winrate", "attributes", "labels", "chat", "redteam", "review"]
State = Literal["draft", "pilot", "open", "paused", "closed"]


class In(BaseModel):
    """What comes in: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class Made(BaseModel):
    """The id of what was made."""

    id: str


class ProjectIn(In):
    """A project with its texts."""

    slug: Slug
    consent: Words
    guideline: Words
    content_warning: Words | None = None
    retention_days: int | None = Field(None, ge=1, le=36_500, description="words are erased then; null: never")
    on_withdrawal: Literal["keep_verdicts", "delete"] = "keep_verdicts"


class CampaignIn(In):
    """A campaign; it follows the project's newest guideline."""

    project: Id
    name: Slug
    task_type: TaskType
    overlap: int = Field(3, ge=1, le=50)
    lease_minutes: int = Field(30, ge=1, le=1440)
    state: State = "draft"


class ResponseIn(In):
    """A response to judge."""

    id: str = Field(min_length=1, max_length=200)
    text: Text = Field(max_length=100_000)
    model: str | None = Field(None, max_length=200)


class ItemIn(In):
    """A prompt, as text or messages, and its responses."""

    id: str = Field(min_length=1, max_length=200)
    prompt: Words
    responses: list[ResponseIn] = Field(max_length=26)


class ItemsIn(In):
    """Items, all or none of which are taken."""

    items: list[ItemIn] = Field(min_length=1, max_length=1000)


class CampaignOut(BaseModel):
    """A campaign and how far it is."""

    id: str
    project: str
    name: str
    task_type: str
    state: str
    overlap: int
    slots: int
    filled: int


class MessageOut(BaseModel):
    """A turn of a prompt."""

    role: str
    content: str


class ShownOut(BaseModel):
    """A response, without its model."""

    id: str
    text: str


class TaskOut(BaseModel):
    """A task, or why there is none (`stop`)."""

    stop: str | None = None
    assignment: str | None = None
    task_type: str | None = None
    prompt: list[MessageOut] = []
    responses: list[ShownOut] = []
    revision: int | None = None
    expires_at: int | None = None
    attributes: bool = Field(False, description="a ranking takes `attributes` of each response too")
    span_tags: list[str] = Field([], description="what a marked passage of a ranked response can be")


class DraftIO(BaseModel):
    """What is typed and not submitted."""

    payload: Payload
    version: int


class DraftIn(In):
    """What is typed and not submitted."""

    payload: Payload


Revision = Annotated[int, Field(ge=1, le=999_999)]


class SubmitIn(In):
    """A verdict; `revision` is the task's, and need not be said beside an Idempotency-Key."""

    revision: Revision | None = None
    payload: Payload
    active_ms: int | None = Field(None, ge=0, le=86_400_000)


class SkipIn(In):
    """No verdict, and why."""

    revision: Revision | None = None
    reason: Literal[
        "unclear prompt", "language", "needs expertise", "disturbing", "broken display", "personal data", "other"
    ]
    text: Words | None = None


class ReceiptOut(BaseModel):
    """What became of a submission."""

    judgment: str
    counted: bool
    repeated: bool


class AiJudgmentIn(In):
    """What a model said of an item. `key` recognises a resend."""

    item: Id
    model: str = Field(min_length=1, max_length=200)
    prompt: Words
    payload: Payload
    display_order: list[Id] = Field(max_length=26)
    key: str = Field(min_length=1, max_length=200)


class AiJudgmentsIn(In):
    """Verdicts of models, all or none of which are taken."""

    judgments: list[AiJudgmentIn] = Field(min_length=1, max_length=1000)


class GuidelineIn(In):
    """The next version."""

    project: Id
    markdown: Words
    note: Text = Field("", max_length=200)


class ExclusionIn(In):
    """Whose judgments are left out, and why."""

    campaign: Id
    annotator: Id
    reason: Words
    evidence: dict[str, Any] = Field(min_length=1)
    replace: bool = False


class ReversalIn(In):
    """Why an exclusion is taken back."""

    reason: Words


class ReviewIn(In):
    """A decision on a judgment or an item."""

    campaign: Id
    decision: Literal["accept", "reject", "adjudicate"]
    reason: Words
    judgment: Id | None = None
    item: Id | None = None
    payload: Payload | None = None


class ConsentTextOut(BaseModel):
    """What people are asked to agree to."""

    id: str
    version: int
    markdown: str


class ConsentIn(In):
    """Agreement to the text of that id, and to which uses."""

    project: Id
    text: Id
    uses: list[Literal["train", "publish"]] = Field([], max_length=2)


class ConversationIn(In):
    """Where to talk; an attempt to break a model names its area and its goal."""

    campaign: Id
    area: Text = Field("", max_length=60)
    goal: Text = Field("", max_length=2000)


class TurnIn(In):
    """What is said; nothing: ask again for the reply to what was said last."""

    text: Text = Field("", max_length=8000)


class PickIn(In):
    """Which of two candidates the conversation goes on from."""

    verdict: Literal["A", "B", "tie", "failed"]


class ProgressOut(BaseModel):
    """Judgments wanted of normal items, those that are in, and tasks that somebody holds now."""

    state: str
    slots: int
    filled: int
    leased: int


class PromptOut(BaseModel):
    """A prompt. `messages` is empty once its author is forgotten."""

    id: str
    messages: list[dict[str, Any]]
    source: str
    language: str | None
    group: str | None
    pii: str


class ResponseOut(BaseModel):
    """A response and who wrote it. `text` is null once its author is forgotten."""

    id: str
    prompt: str
    text: str | None
    origin: str
    model: str | None


class SampleIn(In):
    """Prompts to be answered by every model of the studio, so many times each."""

    prompts: list[Words] = Field(min_length=1, max_length=20)
    count: int = Field(1, ge=1, le=4)


class EventOut(BaseModel):
    """A line of the audit log."""

    id: str
    at: int
    kind: str
    subject: str
    detail: dict[str, Any]
