"""The documentation is held to the code: what it shows runs, parses, resolves and is complete.

Fences of python code say what they are:
    ```python                  runs as it stands, from the root of the repository
    ```python compile          compiles only, because it needs a finished run
    ```python from PATH        stands in that file, line by line; `...` alone on a line leaves some out
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import accord
from accord.cli.app import COMMANDS, find, parser_of
from accord.cli.data import ACTIONS as DATA_ACTIONS
from accord.cli.eval import EVALUATIONS
from accord.cli.feedback import ACTIONS as FEEDBACK_ACTIONS
from accord.cli.options import config_from
from accord.pipelines.jobs import JOBS
from accord.pipelines.quickstart_config import FULL, QuickstartConfig
from accord.pipelines.recipe import read_recipe
from accord.pipelines.reproduce.runner import EXPERIMENTS
from accord.train.configs import SampleConfig

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"methods.md", "metrics.md", "cli.md", "memory.md"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
SOURCES = sorted((ROOT / "src/accord").rglob("*.py"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(accord.__path__, "accord.") if not module.name.endswith("__main__")
)


class Fence(NamedTuple):
    page: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    opened: tuple[int, str] | None = None
    body: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf8").splitlines(), 1):
        if not line.startswith("```"):
            body.append(line)
        elif opened is None:
            opened, body = (number, line[3:].strip()), []
        else:
            yield Fence(page, opened[0], opened[1], "\n".join(body) + "\n")
            opened = None
    assert opened is None, f"{page}: a fence that begins in line {opened} does not end"


def without_fences(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf8"))


FENCES = [fence for page in WRITTEN for fence in fences(page)]
PYTHON = [fence for fence in FENCES if fence.info.split()[:1] == ["python"]]


# -- python ------------------------------------------------------------------------------------------------------------


def test_every_python_fence_says_what_it_is():
    kinds = re.compile(r"python|python compile|python from \S+")
    assert [str(fence) for fence in PYTHON if not kinds.fullmatch(fence.info)] == []
    assert {fence.info.split()[-1] for fence in PYTHON} >= {"python", "compile"}


@pytest.mark.parametrize("fence", [fence for fence in PYTHON if fence.info == "python"], ids=str)
def test_a_python_example_runs(fence, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(fence.text, str(fence), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("fence", [fence for fence in PYTHON if fence.info == "python compile"], ids=str)
def test_a_python_example_compiles(fence):
    compile(fence.text, str(fence), "exec")


def stands_in(snippet: str, source: str) -> str | None:
    """The first line that is not where it should be, or None. Indentation of the whole snippet is left open."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    at, free = 0, True  # free: the next line may stand anywhere further down
    for line in (line.strip() for line in snippet.splitlines() if line.strip()):
        if line == "...":
            free = True
            continue
        places = [n for n, found in enumerate(lines) if n >= at and found == line] if free else [at]
        if not places or lines[places[0] : places[0] + 1] != [line]:
            return line
        at, free = places[0] + 1, False
    return None


@pytest.mark.parametrize("fence", [fence for fence in PYTHON if " from " in fence.info], ids=str)
def test_code_that_is_shown_is_the_code(fence):
    path = ROOT / fence.info.split()[-1]
    line = stands_in(fence.text, path.read_text(encoding="utf8"))
    assert line is None, f"{fence}: {path.relative_to(ROOT)} has no such line here: {line}"


def test_a_changed_line_of_code_is_found():
    source = "a = 1\n\nb = 2\nc = 3\n"
    assert stands_in("    a = 1\n    b = 2\n", source) is None
    assert stands_in("a = 1\n...\nc = 3\n", source) is None
    assert stands_in("a = 1\nc = 3\n", source) == "c = 3"
    assert stands_in("c = 3\n...\na = 1\n", source) == "a = 1"


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """(place, command) of each `accord ...` in a shell fence or between backticks."""
    for fence in fences(page):
        if fence.info in ("sh", ""):
            whole = fence.text.replace("\\\n", " ")
            for found in re.findall(r"(?m)^ *(?:\.venv/bin/)?accord [^#\n]*", whole):
                yield str(fence), found
    for found in re.findall(r"`(?:\.venv/bin/)?accord ([^`]*)`", without_fences(page)):
        yield str(page.relative_to(ROOT)), f"accord {found}"


COMMAND_LINES = list(dict.fromkeys(found for page in WRITTEN for found in commands(page)))


def parse(line: str) -> None:
    """Read a command line as far as that goes without running it; whatever is wrong with it raises."""
    words = [word for word in shlex.split(line)[1:] if word != "--help"]
    if not words or words == ["--version"]:
        return
    command = find(words[0])
    arguments_only = words[1:]
    if not arguments_only and command.name in (
        "train",
        "sample",
        "data",
        "models",
        "chat",
        "report",
        "run",
        "eval",
        "reproduce",
    ):
        return  # the command is named, not shown
    if len(words) == 2 and words[0] == "eval":
        assert set(words[1].split("|")) <= {evaluation.name for evaluation in EVALUATIONS}, line
        return
    if len(words) == 2 and words[0] in ("train", "data", "models") and words[1] != "list":
        assert words[1] in ("get", *JOBS, *(action.name for action in DATA_ACTIONS)), line  # so is a subcommand
        return
    if len(words) == 2 and words[0] == "feedback":
        assert words[1] in {action.name for action in FEEDBACK_ACTIONS}, line
        return
    arguments = parser_of(command).parse_args(arguments_only)
    check_settings(command.name, arguments)


def check_settings(name, arguments):
    """Build the configuration, where the command has one."""
    if name == "reproduce":
        config_from(EXPERIMENTS[arguments.experiment].config, arguments)
    elif name == "train":
        config_from(JOBS[arguments.job].config, arguments)
    elif name == "sample":
        config_from(SampleConfig, arguments)
    elif name == "quickstart":
        config_from(QuickstartConfig, arguments)
    elif name == "run" and arguments.recipe.name != "RECIPE.yaml":
        read_recipe(arguments.recipe, ROOT / "runs-that-are-not-there")


@pytest.mark.parametrize(("place", "line"), COMMAND_LINES, ids=[f"{p}-{n}" for n, (p, _) in enumerate(COMMAND_LINES)])
def test_a_command_line_is_understood(place, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse(line)


WRONG = (
    "accord trian sft",
    "accord train dpo --beta x --model m --data d --out o",
    "accord train sft --model m",
    "accord chat runs/x --promt a",
    "accord run recipes/none.yaml",
)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((ValueError, OSError)):
        parse(line)


def test_every_command_is_shown_somewhere():
    shown = " ".join(line for _, line in COMMAND_LINES)
    missing = [command.name for command in COMMANDS if f"accord {command.name}" not in shown]
    assert missing == []


# -- links and generated pages -----------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_fences(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"(?m)^#+ (.*)$", without_fences(page))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_every_decision_is_listed_and_has_what_was_refused():
    decisions = sorted((ROOT / "docs/decisions").glob("0*.md"))
    assert len(decisions) >= 9
    index = (ROOT / "docs/decisions/README.md").read_text(encoding="utf8")
    for page in decisions:
        assert page.name in index, page.name
        assert "## Refused" in page.read_text(encoding="utf8"), page.name


def generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("accord_tools_docs", ROOT / "tools/docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: make() for name, make in module.PAGES.items()}


def test_generated_pages_are_what_the_code_says():
    pages = generated()
    assert pages.keys() == GENERATED
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf8") == text, f"docs/{name} is stale; run `make docs`"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            text = inspect.getdoc(thing) if inspect.isfunction(thing) else thing.__doc__
            assert text, f"{name}.{public} has no docstring"
            assert not text.startswith(f"{public}("), f"{name}.{public} has only the docstring that was made for it"


def suffixes() -> dict[str, set[str]]:
    """Letter -> files in which a name ends in it, such as R in `logit_RV`."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            for name in (getattr(node, field, None) for field in ("id", "arg", "attr")):
                match = re.fullmatch(r"_?[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)", name) if isinstance(name, str) else None
                for letter in match[1] if match else "":
                    found.setdefault(letter, set()).add(str(path.relative_to(ROOT)))
    return found


def test_the_glossary_has_every_dimension_and_no_other():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf8")
    listed = set(re.findall(r"(?m)^\| `_([A-Z])` \|", text))
    used = {letter: files for letter, files in suffixes().items() if letter.isalpha()}
    assert {letter: files for letter, files in used.items() if letter not in listed} == {}
    assert listed - used.keys() == set()


def test_the_glossary_has_every_unit_of_the_metrics():
    from accord.train.metrics import METRICS

    text = (ROOT / "docs/glossary.md").read_text(encoding="utf8")
    missing = sorted({unit for unit, _ in METRICS.values() if unit and f"`{unit}`" not in text})
    assert missing == []


def test_the_readme_tells_the_recipe_of_the_quickstart():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf8").split())
    words = {4: "four"}
    assert f"writes {words[FULL.samples]} responses to each of {FULL.train_prompts} film-review prompts" in text
    assert f"answer {FULL.held_out_prompts} prompts about films" in text
