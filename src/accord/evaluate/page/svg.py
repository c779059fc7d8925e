"""SVG without a plotting library: escaped tags, scales, ticks, numbers as people write them.

Everything passes through `tag`, which escapes text and attribute values, so no name or text from a run can become
markup. Colours are CSS classes (`c-ppo`), so that one drawing serves light and dark pages; no `style` attributes,
which the page's content security policy refuses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = [
    "Scale",
    "StageStyle",
    "chart",
    "fixed",
    "format_number",
    "marker",
    "responsive",
    "stage_style",
    "stage_styles",
    "tag",
    "ticks",
]

WIDE, NARROW = 520, 350  # drawing widths in px for desktops and phones
LETTER = 8  # px of a bold letter of 13 px, on the generous side
DASH = "\u2013"  # where there is no figure


@dataclass(frozen=True)
class StageStyle:
    """How a stage or run looks everywhere on the page: never colour alone, always a shape with it."""

    css: str
    shape: str


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels: `Scale(0, 10, 100, 200)(5)` is 150."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


STYLES = {
    "base": StageStyle("c-base", "circle"),
    "reference": StageStyle("c-base", "circle"),
    "sft": StageStyle("c-sft", "square"),
    "ppo": StageStyle("c-ppo", "triangle"),
    "dpo": StageStyle("c-dpo", "diamond"),
    "reward": StageStyle("c-reward", "cross"),
}
OTHERS = tuple(
    StageStyle(css, shape)
    for css, shape in (
        ("c-dpo", "circle"),
        ("c-ppo", "square"),
        ("c-reward", "triangle"),
        ("c-sft", "diamond"),
        ("c-base", "cross"),
    )
)


def stage_styles(names: Sequence[str]) -> dict[str, StageStyle]:
    """A style for each of several stages or runs: their own where they have one, else one that none of these has.

    The same names get the same styles in every figure of a page, in whatever order base, SFT, PPO and DPO stand among
    them. Beyond the colours that are free, shapes tell apart.
    """
    own = {name: STYLES[name] for name in names if name in STYLES}
    taken = {style.css for style in own.values()} | {STYLES["base"].css}
    free = [style.css for style in OTHERS if style.css not in taken] or [style.css for style in OTHERS]
    shapes = [style.shape for style in OTHERS]
    others = [name for name in dict.fromkeys(names) if name not in own]
    return own | {
        name: StageStyle(free[position % len(free)], shapes[position % len(shapes)])
        for position, name in enumerate(others)
    }


def stage_style(name: str, position: int = 0) -> StageStyle:
    """The style of a stage; of unknown ones by their position."""
    return STYLES.get(name, OTHERS[position % len(OTHERS)])


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. `class_` is class, other underscores are hyphens, None leaves an attribute out."""
    parts = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup("<{0}{1}>{2}</{0}>").format(
        Markup(name), Markup("").join(parts), Markup("").join(map(escape, children))
    )


def chart(
    identity: str, title: str, description: str, size: tuple[int, int], *content: object, **attributes: object
) -> Markup:
    """An SVG that scales with its column and tells screen readers what it shows."""
    return tag(
        "svg",
        tag("title", title, id=f"{identity}-title"),
        tag("desc", description, id=f"{identity}-desc"),
        *content,
        viewBox=f"0 0 {size[0]} {size[1]}",
        width=size[0],
        height=size[1],
        role="img",
        aria_labelledby=f"{identity}-title",
        aria_describedby=f"{identity}-desc",
        **attributes,
    )


def responsive(wide: Markup, narrow: Markup) -> Markup:
    """Two drawings of one figure; the page shows the one that fits, so text keeps its size on a phone."""
    return tag("div", wide, class_="wide") + tag("div", narrow, class_="narrow")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that lie inside low..high: 0..1 gives 0, 0.25 would not, 0.2 does."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of values with some room; a constant gets room around itself."""
    low, high = min(values), max(values)
    room = max(abs(low), 1e-9) * 0.1 if low else 0.5
    if is_spread(low, high):
        room = (high - low) * share
    return low - room, high + room


def is_spread(low: float, high: float) -> bool:
    """Whether two ends differ by more than rounding."""
    return high - low > 1e-9 * max(abs(low), abs(high))


def format_number(value: float | None, digits: int = 3) -> str:
    """Three significant digits with a true minus sign: 0.000020 is 2e−5, 12345.6 is 12,346, nothing is a dash."""
    if value is None:
        return DASH
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    elif abs(value) >= 10**digits:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "\u2212")


def fixed(value: float) -> str:
    """Two decimals below ten, one below a thousand, two digits of what is tiny: for figures under each other."""
    if 0 < abs(value) < 0.005:
        return format_number(value, 2)  # not -0.00
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}".replace("-", "\u2212")


def marker(shape: str, x: float, y: float, radius: float = 5, **attributes: object) -> Markup:
    """A data point."""
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=radius, **attributes)
    outline = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.15, 0.9), (-1.15, 0.9)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "cross": ((-0.5, -1.2), (0.5, -1.2), (0.5, -0.5), (1.2, -0.5), (1.2, 0.5), (0.5, 0.5), (0.5, 1.2), (-0.5, 1.2),
                  (-0.5, 0.5), (-1.2, 0.5), (-1.2, -0.5), (-0.5, -0.5)),
    }[shape]  # fmt: skip
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in outline)
    return tag("polygon", points=points, **attributes)


def text(content: object, x: float, y: float, anchor: str = "start", css: str = "") -> Markup:
    """A line of text with its baseline at y."""
    return tag("text", content, x=x, y=y, text_anchor=anchor, class_=css or None)


def names_width(names: Sequence[str], width: int) -> int:
    """Px for a column of names at the left of a chart: as they need, at most a third of the chart."""
    return min(16 + round(LETTER * max(map(len, names))), width // 3)


def name_text(name: str, y: float, room: float) -> Markup:
    """A name at the left, cut to its room."""
    letters = max(4, int((room - 12) / LETTER))
    return text(name if len(name) <= letters else name[: letters - 1] + "…", 0, y, "start", "name")


def x_axis(scale: Scale, top: float, bottom: float, label: str, count: int = 5) -> Markup:
    """Vertical grid lines, their numbers below, and what they count."""
    parts = []
    for value in ticks(scale.low, scale.high, count):
        x = scale(value)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(text(format_number(value, 4), x, bottom + 16, "middle", "tick"))
    parts.append(text(label, scale.end, bottom + 34, "end", "axis"))
    return Markup("").join(parts)


def y_axis(scale: Scale, left: float, right: float, label: str, count: int = 4) -> Markup:
    """Horizontal grid lines, their numbers at the left, and the unit above them."""
    parts = []
    for value in ticks(scale.low, scale.high, count):
        y = scale(value)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(text(format_number(value, 4), left - 7, y + 4, "end", "tick"))
    parts.append(text(label, 0, scale.end - 10, "start", "axis"))
    return Markup("").join(parts)
