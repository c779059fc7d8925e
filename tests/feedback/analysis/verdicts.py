"""Verdicts without a database: who said what of which item."""

from __future__ import annotations

from itertools import count

from accord.feedback.analysis import Material
from accord.feedback.store import Content, Verdict
from accord.records import Message

_numbers = count()
SECOND = 1000
START = 1_790_000_000_000


def content(item, texts=("one", "two"), group=None):
    names = [f"{item}.{place}" for place in range(len(texts))]
    return Content(
        item_id=item, name=item, prompt_id=item, prompt_hash=item, group=group,
        prompt=(Message(role="user", content=f"question {item}"),), responses=dict(zip(names, texts, strict=True)),
        names={name: name for name in names}, models=dict.fromkeys(names),
    )  # fmt: skip


def verdict(item, who, payload=None, ranks=None, order=None, seconds=30, at=0, **more):
    """`ranks`: places by position of the response; `order`: positions as shown."""
    names = None if ranks is None else [f"{item}.{place}" for place in range(len(ranks))]
    shown = () if names is None else tuple(names[place] for place in (order or range(len(names))))
    known = {
        "judgment_id": f"j{next(_numbers):06}", "item_id": item, "kind": "normal", "arm": "random", "annotator": who,
        "source": "human", "judge": None, "revision": 1, "payload": payload or {},
        "words": None, "ranks": None if names is None else dict(zip(names, ranks, strict=True)),
        "display_order": shown, "guideline": "1", "started_at": START + at * SECOND,
        "submitted_at": START + (at + seconds) * SECOND, "active_ms": seconds * SECOND, "counted": True,
        "excluded": False,
    }  # fmt: skip
    return Verdict(**{**known, **more})


def material(verdicts, contents=None, task_type="rank", **more):
    items = dict.fromkeys(one.item_id for one in verdicts)
    found = contents or [content(item) for item in items]
    return Material(
        campaign_id="c", name="p/c", task_type=task_type, state="open", verdicts=tuple(verdicts),
        contents={one.item_id: one for one in found}, **more,
    )  # fmt: skip
