"""Two replies shown in step, so that neither the order in which they come nor how fast tells the models apart.

Both grow by `STEP` characters at a time, together. Step k is shown when both have come that far; a reply that has ended
before goes on setting the pace: it counts as if it went on as fast as it came. So a step is shown at

    max(came_A(k), came_B(k)),    came(k) = end + (STEP k - length) * pace   behind the end,

which is the same whichever of the two models is the slower one. What is sent says nothing of time at all: message k has
the k-th step of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["STEP", "Lockstep"]

STEP = 16  # characters: some three words, so that a model that writes in larger pieces does not stand out


@dataclass
class _Side:
    """A reply and when it came.

    Attributes:
        text: so far.
        came: when each whole step of it was there, seconds.
        first: (characters, seconds) of its first piece.
        end: when it ended; None: it goes on.
    """

    text: str = ""
    came: list[float] = field(default_factory=list)
    first: tuple[int, float] | None = None
    end: float | None = None

    def grow(self, text: str, now: float) -> None:
        self.text = text
        if text and self.first is None:
            self.first = len(text), now
        self.came.extend([now] * (len(text) // STEP - len(self.came)))

    def step(self, number: int, start: float) -> float:
        """When a step was there, counted from 1, or would have been had the reply gone on; infinity: not yet."""
        if number <= len(self.came):
            return self.came[number - 1]
        if self.end is None:
            return math.inf
        return self.end + max(0, number * STEP - len(self.text)) * self._pace(start)

    def _pace(self, start: float) -> float:
        """Seconds a character, behind the first piece where there is more than one: that one had to be waited for."""
        assert self.end is not None
        characters, at = self.first or (0, start)
        if len(self.text) - characters < STEP:
            return (self.end - start) / max(len(self.text), STEP)
        return (self.end - at) / (len(self.text) - characters)


class Lockstep:
    """Two replies that grow, and how far both are shown.

    Example: `Lockstep(now=0.0)`, then `grew(0, "4", now=1.0)`, `ended(0, now=1.1)`, and the same of side 1.
    """

    def __init__(self, *, now: float) -> None:
        self._start = now
        self._sides = (_Side(), _Side())

    def grew(self, side: int, text: str, *, now: float) -> None:
        """A reply is as long as this now."""
        self._sides[side].grow(text, now)

    def ended(self, side: int, *, now: float) -> None:
        """A reply has no more to come."""
        self._sides[side].end = now

    def behind(self) -> int | None:
        """The side to ask for more: of those that go on the shorter one; None: both have ended."""
        going = [number for number, side in enumerate(self._sides) if side.end is None]
        return min(going, key=lambda number: len(self._sides[number].text)) if going else None

    def shown(self, *, now: float) -> int:
        """Steps that are shown by a time; each of them stays shown."""
        steps = 0
        while steps < self._most() and self._time(steps + 1) <= now:
            steps += 1
        return steps

    def last(self) -> float:
        """When the last step will be shown; both have ended."""
        return self._time(self._most())

    def part(self, number: int) -> list[str]:
        """What the step has of each reply, counted from 1; nothing of one that is over."""
        return [side.text[(number - 1) * STEP : number * STEP] for side in self._sides]

    def until(self, steps: int) -> list[tuple[str, bool]]:
        """(what is shown of each reply after so many steps, that is all of it)."""
        return [
            (side.text[: steps * STEP], side.end is not None and len(side.text) <= steps * STEP) for side in self._sides
        ]

    def _most(self) -> int:
        return max(-(-len(side.text) // STEP) for side in self._sides)

    def _time(self, number: int) -> float:
        return max(side.step(number, self._start) for side in self._sides)
