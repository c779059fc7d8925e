"""Put the items first whose judgments would teach most; a fixed share stays random, and quality is measured on that.

By disagreement of the annotators so far, by the uncertainty of a reward model (probabilities or rewards in a file), by
distance to what is judged already, or by scores of a file. Rewards are kept: reports hold the model beside people, on
what they have judged and will. Two arms are kept apart from then on: reports show figures
of the random items only, and what labels of each arm taught a small model.
"""

from __future__ import annotations

import argparse

from accord.cli.feedback_common import opened, print_pairs, steps
from accord.cli.options import add_config_arguments, config_from
from accord.pipelines.feedback_settings import PrioritiseConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    add_config_arguments(parser, PrioritiseConfig, words="campaign")


def run(arguments: argparse.Namespace) -> int:
    """Score the items, reorder the queue, print the arms."""
    config = config_from(PrioritiseConfig, arguments)
    with opened(config.database) as store, steps() as bar:
        from accord.feedback.analysis import gather
        from accord.feedback.store import keep_rewards, prioritise
        from accord.feedback.store.find import arms_of, find_campaign
        from accord.pipelines.feedback_priorities import item_rewards, item_scores

        campaign = store.read(find_campaign, config.campaign)
        bar("reading judgments", 0, None)
        material = store.read(gather, campaign_id=campaign.id)
        normal = store.read(arms_of, campaign.id)
        scores = {
            item: score for item, score in item_scores(material, config.by, config.scores).items() if item in normal
        }
        rewards = item_rewards(material, config.scores) if config.by == "uncertainty" and config.scores else {}
        model = config.reward_model or (config.scores.stem if config.scores else "")
        kept = 0
        if rewards:
            kept = store.run(keep_rewards, campaign_id=campaign.id, model=model, rewards=rewards)
        bar("ordering the queue", 0, None)
        store.run(prioritise, campaign_id=campaign.id, scores=scores, actor_id=None, random_share=config.random_share)
        arms = store.read(arms_of, campaign.id)
    random = sum(arm == "random" for arm in arms.values())
    ordered = sorted(scores.values())
    pairs = [
        ("items", f"{len(arms):,}: {random:,} random, {len(arms) - random:,} by score"),
        (
            "scores",
            f"{ordered[0]:.3g} to {ordered[-1]:.3g}, median {ordered[len(ordered) // 2]:.3g}" if ordered else "none",
        ),
    ]
    if rewards:
        pairs.append(("rewards kept", f"{kept:,} of {model}"))
    print_pairs(f"queue of {campaign.name} by {config.by}", pairs)
    return 0
