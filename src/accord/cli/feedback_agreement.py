"""How far the annotators of a campaign agree, and whose judgments a person should look at.

Krippendorff's alpha, kappa with an expected agreement of 1/2 (responses are shuffled), tau-b; by annotator, prompt
group, guideline version and week; position and length bias; evidence on annotators; consensus and disputed items. With
--out the same as one HTML file, as JSON, and the consensus as JSONL.
"""

from __future__ import annotations

import argparse

from rich.text import Text

from accord.cli.console import output_console
from accord.cli.feedback_common import opened, print_table, steps
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import AgreementConfig

__all__ = ["add_arguments", "run"]

TEXTUAL = ("suspects", "disputed", "judges", "pilot")  # tables of words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, AgreementConfig, words="campaign")


def run(arguments: argparse.Namespace) -> int:
    """Compute the report, print it, write it where asked."""
    config = config_from(AgreementConfig, arguments)
    with opened(config.database) as store, steps() as bar:
        from accord.feedback.analysis import analyse, gather
        from accord.feedback.analysis.page import write_page
        from accord.feedback.analysis.tables import headline, sections
        from accord.feedback.store.find import find_campaign

        campaign = store.read(find_campaign, config.campaign)
        bar("reading judgments", 0, None)
        material = store.read(gather, campaign_id=campaign.id)
        report = analyse(material, lambda name: bar(name, 0, None))
        paths = write_page(report, config.out) if config.out else {}
    console = output_console()
    console.print(Text(report.campaign, "bold"))
    for line in headline(report):
        console.print(line, markup=False, soft_wrap=True)
    for section in sections(report):
        if section.table is None:
            console.print(Text(f"\n{section.title}", "bold"))
            console.print(Text(section.sees, "dim"))
        else:
            print_table(section.table, section.title, section.sees, right=section.identity not in TEXTUAL)
            if section.more:
                console.print(Text(f"{section.more} more; --out writes all", "dim"))
    if paths:
        console.print()
    for path in paths.values():
        console.print(Text(str(path), "bold"), soft_wrap=True)
    return 0
