"""Whether an answer given here is what the campaign asks for. Imported ones may have marks and tags of their own."""

from __future__ import annotations

from collections.abc import Iterable

from accord.feedback.store.payloads import Chat, Payload, Ranks, RedTeam
from accord.feedback.store.settings import CampaignSettings

__all__ = ["HARM_AREAS", "check_asked"]

HARM_AREAS = (
    "violence",
    "self-harm",
    "hate and discrimination",
    "sexual content",
    "weapons and dangerous substances",
    "crime and fraud",
    "privacy",
    "false information",
    "manipulation",
    "harmful advice",
    "other",
)


def check_asked(payload: Payload, settings: CampaignSettings, conversation: str | None) -> None:
    """Raise ValueError unless a parsed payload has what its campaign asks for, and nothing else.

    What is chosen from a list stays in a judgment for good, while words are a body that can be forgotten: a tag of
    one's own would be words that cannot.

    Args:
        payload: what was said.
        settings: of the campaign.
        conversation: the one that is rated, in chat and redteam tasks; None: not known.
    """
    if isinstance(payload, Ranks):
        _known("spans", (span.tag for span in payload.spans), settings.span_tags)
        if settings.attributes_first and payload.attributes is None:
            raise ValueError("the campaign asks for `attributes` of each response beside the ranks; add them")
        if payload.attributes is not None and not settings.attributes_first:
            raise ValueError("the campaign does not ask for attributes; leave `attributes` out")
    if isinstance(payload, RedTeam):
        _known("harm_tags", payload.harm_tags, HARM_AREAS)
    rated = payload.conversation_id if isinstance(payload, (Chat, RedTeam)) else None
    if None not in (rated, conversation) and rated != conversation:
        raise ValueError(f"`conversation_id` is {rated!r}; expected that of the task, {conversation!r}")


def _known(name: str, tags: Iterable[str], known: tuple[str, ...]) -> None:
    unknown = next((tag for tag in tags if tag not in known), None)
    if unknown is not None:
        raise ValueError(f"`{name}` has the tag {unknown!r}; expected one of: {', '.join(known) or 'none'}")
