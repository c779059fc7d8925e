"""What people ask, as a map: chat logs screened for personal data, without near-duplicates, clustered and named.

Writes one HTML file that opens offline, and its figures. With --compare a second set stands on the same map, e.g. what
task collections hold; with --campaign prompts of the clusters become a campaign, drawn by their shares.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.text import Text

from accord.cli.console import error_console, output_console
from accord.cli.feedback_common import extra_detectors, opened, print_pairs, print_table, steps
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import CampaignTarget, ExploreConfig
from accord.pipelines.settings import SettingsError

if TYPE_CHECKING:
    from accord.data.readers import BadRow
    from accord.feedback.explore import Exploration

__all__ = ["add_arguments", "run"]

FIRST = 20  # clusters on the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; words without a flag are files."""
    add_config_arguments(parser, ExploreConfig, words="files")


def run(arguments: argparse.Namespace) -> int:
    """Explore, print the clusters, write the page, make the campaign if one is asked for."""
    config = config_from(ExploreConfig, arguments)
    try:
        import sklearn  # noqa: F401 - the check
        import sqlalchemy  # noqa: F401 - the check
    except ImportError as error:
        raise SettingsError(f"the explorer needs {error.name}: pip install 'accord-align[studio]'") from None
    from accord.feedback.explore import write_exploration

    found, bad = explored(config)
    print_clusters(found)
    sources = [path.name for path in config.files]
    for path in write_exploration(found, config.out, sources=sources).values():
        output_console().print(Text(str(path), "bold"), soft_wrap=True)
    if bad:
        from accord.data.writers import write_bad_rows

        write_bad_rows(bad, config.out / "bad_rows.jsonl")
        error_console().print(f"{len(bad)} rows were left out: {config.out / 'bad_rows.jsonl'}", soft_wrap=True)
    if config.campaign is not None:
        make_campaign(config, found)
    return 0


def explored(config: ExploreConfig) -> tuple[Exploration, list[BadRow]]:
    """Read and explore, with a bar."""
    from accord.data.collections import read_logs
    from accord.feedback.explore import explore

    if config.embedding == "sentence-transformers" and config.model is None:
        raise SettingsError("--embedding sentence-transformers needs --model, the name of one; add it")
    with steps() as bar:
        logs, second = (
            read_logs(paths, skip_bad_rows=config.skip_bad_rows, seen=lambda rows: bar("reading", rows, None))
            if paths
            else None
            for paths in (config.files, config.compare or ())
        )
        assert logs is not None
        found = explore(
            logs.logs,
            second.logs if second else (),
            clusters=config.clusters,
            model=None if config.embedding == "tf-idf" else config.model,
            screen=config.screen,
            detectors=extra_detectors(config.presidio),
            near_duplicates=config.near_duplicates,
            per_user=config.per_user,
            map_points=config.map_points,
            seed=config.seed,
            step=bar,
        )
    return found, [*logs.bad_rows, *(second.bad_rows if second else ())]


def print_clusters(found: Exploration) -> None:
    """What was left out, then the clusters."""
    from accord.evaluate.page.parts import Table

    part = found.prepared
    finds = ", ".join(f"{count} {kind}" for kind, count in sorted(part.finds.items()))
    pairs = [
        ("conversations", f"{part.conversations:,}"),
        (
            "personal data",
            f"{finds} in {part.with_finds:,} by pattern; automatic removal misses cases" if finds else "none",
        ),
        ("dropped for it", f"{part.dropped:,}" if part.dropped else ""),
        ("over the limit of a person", f"{part.capped:,}" if part.capped else ""),
        ("near-duplicates", f"{part.duplicates:,} left out"),
        ("on the map", f"{len(part.logs):,}, placed by {found.embedding}"),
    ]
    if found.divergence is not None and found.compared is not None:
        pairs.append(("second set", f"{len(found.compared.logs):,}"))
        pairs.append(("Jensen-Shannon divergence", f"{found.divergence.jensen_shannon:.2f} bits of 1"))
    print_pairs("what people ask", pairs)
    header = ["cluster", "size", *(("share", "second set") if found.divergence else ()), "terms"]
    rows = []
    for cluster in found.clusters[:FIRST]:
        shares = found.divergence.shares[cluster.number] if found.divergence else ()
        rows.append(
            [str(cluster.number), f"{cluster.size:,}", *(f"{one:.1%}" for one in shares), ", ".join(cluster.terms)]
        )
    more = len(found.clusters) - FIRST
    print_table(Table(header=header, rows=rows), note=f"and {more} more on the page" if more > 0 else "", right=False)


def make_campaign(config: ExploreConfig, found: Exploration) -> None:
    """Make a campaign of prompts of the picked clusters."""
    from accord.feedback.explore import choose, fill_campaign
    from accord.pipelines.feedback_data import target_campaign

    numbers = {cluster.number for cluster in found.clusters}
    wrong = [number for number in config.pick or () if number not in numbers]
    if wrong:
        raise SettingsError(f"--pick {wrong[0]}: there is no such cluster; expected numbers from 0 to {max(numbers)}")
    picked = numbers if config.pick is None else set(config.pick)
    points = choose([point for point in found.points if point.cluster in picked], config.items, config.seed)
    target = CampaignTarget(campaign=str(config.campaign), task=config.task, database=config.database)
    names = {cluster.number: cluster.name for cluster in found.clusters}
    with opened(config.database) as store:
        campaign_id, name = store.run(target_campaign, target)
        items = fill_campaign(store, points, names, campaign_id=campaign_id).items
    print_pairs(f"campaign {name}", [("items", f"{len(set(items)):,}")])
