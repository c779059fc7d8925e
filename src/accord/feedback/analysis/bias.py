"""What decides besides quality: the place on the screen, and the length.

Both are shares of strict choices between two responses that were shown beside each other; 1/2 is no preference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from accord.evaluate.intervals import mean_result
from accord.evaluate.result import Result
from accord.feedback.store.arrays import pair_verdict
from accord.feedback.store.queries.verdicts import Content, Verdict

__all__ = ["Bias", "bias_of", "ends_pair", "strict_pairs"]

RATIOS = ((1.0, 1.1), (1.1, 1.5), (1.5, 2.0), (2.0, math.inf))  # longer / shorter, in characters


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A strict choice. `first_won`: the one shown earlier; `longer_won`: None if both are of one length."""

    item: str
    annotator: str
    first_won: bool
    places: tuple[int, int]
    longer_won: bool | None
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Shares of strict choices, clustered by item.

    Attributes:
        first: the response shown earlier was preferred.
        by_place: the response at this place, from 1, was preferred to the others, by number of responses K.
        longer: the longer one was preferred, of pairs of unequal length.
        by_ratio: the same by how many times longer, "1.1-1.5".
    """

    first: Result | None
    by_place: Mapping[int, Mapping[int, Result]]
    longer: Result | None
    by_ratio: Mapping[str, Result]


def strict_pairs(verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> Iterator[Choice]:
    """Every pair of shown responses that a verdict does not call equal."""
    for verdict in verdicts:
        content = contents.get(verdict.item_id)
        if content is None or verdict.ranks is None:
            continue
        shown = [one for one in verdict.display_order if one in verdict.ranks]
        for (i, first), (j, second) in combinations(enumerate(shown), 2):
            better = pair_verdict(verdict, first, second)
            if better:
                a, b = (len(content.responses.get(one) or "") for one in (first, second))
                yield Choice(
                    item=verdict.item_id,
                    annotator=verdict.annotator,
                    first_won=better > 0,
                    places=(i, j),
                    longer_won=None if a == b else (a > b) == (better > 0),
                    ratio=max(a, b) / max(min(a, b), 1),
                )


def ends_pair(verdict: Verdict) -> bool | None:
    """Whether the response shown first beat the one shown last; None: equal, or no ranks.

    One trial per verdict whatever the number of responses, so trials are independent and 1/2 is chance.
    """
    if verdict.ranks is None or len(verdict.display_order) < 2:
        return None
    better = pair_verdict(verdict, verdict.display_order[0], verdict.display_order[-1])
    return None if not better else better > 0


def bias_of(verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> Bias:
    """Position and length bias of some verdicts."""
    choices = list(strict_pairs(verdicts, contents))
    return Bias(
        first=_share([(one.item, one.first_won) for one in choices]),
        by_place=_by_place(verdicts, contents),
        longer=_share([(one.item, one.longer_won) for one in choices if one.longer_won is not None]),
        by_ratio=_by_ratio(choices),
    )


def _share(rows: Sequence[tuple[str, bool]]) -> Result | None:
    return mean_result([float(won) for _, won in rows], [item for item, _ in rows]) if rows else None


def _by_place(verdicts: Sequence[Verdict], contents: Mapping[str, Content]) -> dict[int, dict[int, Result]]:
    found: dict[int, dict[int, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    for one in verdicts:
        k = len(one.display_order)
        for choice in strict_pairs([one], contents):
            first, second = choice.places
            found[k][first + 1].append((choice.item, choice.first_won))
            found[k][second + 1].append((choice.item, not choice.first_won))
    return {
        k: {place: result for place in sorted(places) if (result := _share(places[place])) is not None}
        for k, places in sorted(found.items())
    }


def _by_ratio(choices: Sequence[Choice]) -> dict[str, Result]:
    found = {}
    for low, high in RATIOS:
        rows = [(one.item, one.longer_won) for one in choices if one.longer_won is not None and low <= one.ratio < high]
        result = _share([(item, bool(won)) for item, won in rows])
        if result is not None:
            found[f"{low:g}-{high:g}" if high < math.inf else f"over {low:g}"] = result
    return found
