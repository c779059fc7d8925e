"""Two replies in step: when a step is shown does not say which is the slower one, and what is sent says no time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from accord.feedback.studio.lockstep import STEP, Lockstep
from accord.feedback.studio.talking import both_stream, written, written_side_by_side
from accord.feedback.studio.writing import Writing
from accord.protocols import LanguageModel, Reply, Usage
from accord.records import Message

LONG, SHORT = "a" * (20 * STEP), "b" * (5 * STEP)


def schedule(texts, seconds, piece=4, wait=(0.0, 0.0)) -> list[float]:
    """When each step is shown of two replies that come in pieces, at so many seconds a character after a wait."""
    both = Lockstep(now=0.0)
    events = sorted(
        (wait[side] + at * seconds[side], side, at)
        for side in (0, 1)
        for at in range(piece, len(texts[side]) + piece, piece)
    )
    for now, side, at in events:
        both.grew(side, texts[side][:at], now=now)
        if at >= len(texts[side]):
            both.ended(side, now=now)
    steps = -(-max(map(len, texts)) // STEP)
    assert both.shown(now=both.last() - 1e-9) == steps - 1
    assert both.shown(now=both.last()) == steps
    return [both._time(number) for number in range(1, steps + 1)]


def test_the_pace_is_that_of_the_slower_one_by_hand():
    """At 1 and 10 ms a character a step of 16 takes 160 ms, also those that only the other one still has."""
    times = schedule((LONG, SHORT), (0.001, 0.010))
    assert times == pytest.approx([0.16 * number for number in range(1, 21)])


@pytest.mark.parametrize(("slow", "fast"), [(0.010, 0.001), (0.02, 0.015)])
@pytest.mark.parametrize("piece", [1, 4, 16])
def test_it_cannot_be_told_which_of_the_two_is_slower(slow, fast, piece):
    """The short reply ends first, whoever writes it; a wait before the first word makes no difference to that."""
    for wait in ((0.0, 0.0), (0.5, 0.0)):
        one = schedule((LONG, SHORT), (fast, slow), piece, wait)
        other = schedule((LONG, SHORT), (slow, fast), piece, wait[::-1])
        assert one == pytest.approx(other, abs=1e-9)


def test_without_the_pace_of_the_ended_one_it_could():
    """What the rule is for: shown as it comes, the tail would run off where the slow one was the short one."""
    both = Lockstep(now=0.0)
    both.grew(0, LONG, now=0.3)
    both.ended(0, now=0.3)
    for number in range(1, 6):
        both.grew(1, SHORT[: number * STEP], now=float(number))
    assert both.shown(now=5.0) == 5
    both.ended(1, now=5.0)
    assert both.shown(now=5.0) == 5  # all 20 have come, and are held back
    assert both.shown(now=8.99) == 8
    assert both.shown(now=9.0) == 9


def test_a_reply_of_nothing_and_one_in_a_single_piece():
    both = Lockstep(now=0.0)
    assert both.behind() == 0
    both.ended(0, now=1.0)
    assert both.behind() == 1
    both.grew(1, "four", now=2.0)
    assert both.shown(now=9.0) == 0
    both.ended(1, now=2.0)
    assert both.behind() is None
    assert both.last() == pytest.approx(3.5)  # four characters in 2 s, all at once: 16 would have taken 12/8 s more
    assert (both.shown(now=3.6), both.part(1), both.until(1)) == (1, ["", "four"], [("", True), ("four", True)])


class Paced(LanguageModel):
    """Says a text in pieces, each after a while."""

    usage = Usage()

    def __init__(self, name: str, text: str, seconds: float, piece: int = 8):
        self._name, self.text, self.seconds, self.piece = name, text, seconds, piece

    @property
    def name(self):
        return self._name

    def stream(self, prompt, sampling):
        for end in range(self.piece, len(self.text) + self.piece, self.piece):
            time.sleep(self.seconds)
            finish = "stop" if end >= len(self.text) else "length"
            yield Reply(text=self.text[:end], finish=finish, prompt_tokens=1, new_tokens=end, seconds=0.1)

    def generate(self, prompts, count, sampling):
        raise AssertionError("a stream was asked for")

    score = generate


def sent(models, *, stop_after: int | None = None):
    """(events, candidates) of two models that answer side by side, watched to the end or stopped after some steps."""
    writing, found = Writing("talk", two=True), []

    def work():
        more = {"secret": "s", "conversation_id": "talk", "max_new_tokens": 100}
        found.extend(written_side_by_side(models, [Message(role="user", content="hello")], writing, **more))
        writing.done = True

    async def watch():
        seen = []
        async for event in writing.events():
            seen.append(event)
            if stop_after is not None and len(seen) == stop_after:
                writing.stop()
        return seen

    thread = threading.Thread(target=work)
    thread.start()
    events = asyncio.run(watch())
    thread.join()
    return "".join(events), found


def pair(slow: str) -> dict[str, Paced]:
    """The models m and n, of which one is slow; what they say is the same whoever that is."""
    texts = {"m": "one two three four five six seven eight nine ten " * 3, "n": "eins zwei drei vier " * 4}
    return {name: Paced(name, text, 0.012 if name == slow else 0.001) for name, text in texts.items()}


def test_the_bytes_that_are_sent_are_the_same_whichever_is_slower():
    (first, found), (second, again) = sent(pair("m")), sent(pair("n"))
    assert first == second
    assert [one.text for one in found] == [one.text for one in again]
    assert first.count("data: ") == -(-len(pair("m")["m"].text.strip()) // STEP) + 1
    assert {one.finish for one in found} == {"stop"}
    assert "seconds" not in first


def test_who_stops_it_keeps_what_was_shown_of_both_and_no_more():
    texts = {name: model.text for name, model in pair("m").items()}
    for slow in texts:
        events, found = sent(pair(slow), stop_after=2)
        assert all(one.text in texts[one.model] for one in found)
        assert [len(one.text) for one in found] == [events.count('"add"') * STEP] * 2
        assert [one.finish for one in found] == ["stopped", "stopped"]


def test_a_model_that_comes_in_one_piece_is_not_watched_beside_another():
    assert both_stream(pair("m"))
    assert not both_stream({**pair("m"), "m": lambda prompts, count, sampling: None})
    assert not both_stream({"m": pair("m")["m"]})


def test_two_models_of_this_process_say_in_step_what_each_says_alone():
    """They take turns with one processor, token by token, and neither disturbs what the other samples."""
    from accord.rollouts.local import LocalModel
    from accord.text import Template
    from fakes import tiny_llama, tiny_tokenizer

    models = {
        name: LocalModel(tiny_llama(seed=seed), Template(tiny_tokenizer()), name=name)
        for seed, name in enumerate(("m", "n"))
    }
    messages = [Message(role="user", content="hello")]
    alone = {}
    for name, model in models.items():
        writing = Writing("talk")
        alone[name] = written(model, name, messages, writing, max_new_tokens=100).text
    events, found = sent(models)
    assert {one.model: one.text for one in found} == alone
    assert len(set(alone.values())) == 2
    assert events.count('"add"') == -(-max(map(len, alone.values())) // STEP)
