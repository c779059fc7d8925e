"""Settings of the feedback commands: light, so that `accord feedback --help` needs neither database nor model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "AgreementConfig",
    "CampaignTarget",
    "ExploreConfig",
    "FeedbackExport",
    "FeedbackImport",
    "FeedbackSample",
    "ForgetConfig",
    "PrioritiseConfig",
    "StoreConfig",
]

TaskType = Literal["demonstrate", "rank", "pairwise", "winrate", "attributes", "labels", "chat", "redteam", "review"]
Screen = Literal["replace", "drop", "hold", "off"]


class StoreConfig(BaseModel, frozen=True, extra="forbid"):
    """Which store."""

    database: str = Field("sqlite:///feedback.db", description="address of the store, as SQLAlchemy writes it")


class CampaignTarget(StoreConfig, frozen=True, extra="forbid"):
    """The campaign that items go to; made if it is not there."""

    campaign: str = Field(description="name of the campaign, or PROJECT/NAME; made if it is not there")
    project: str = Field("default", description="project of a campaign that is made, unless its name says so")
    task: TaskType = Field("rank", description="kind of task of a campaign that is made")
    overlap: int = Field(3, ge=1, le=50, description="annotators per item of a campaign that is made")
    guideline: Path | None = Field(
        None, description="markdown file, the guideline of a campaign that is made; none: a short one"
    )


class FeedbackImport(CampaignTarget, frozen=True, extra="forbid"):
    """Settings of `accord feedback import`."""

    files: tuple[Path, ...] = Field(description="files: .jsonl, .jsonl.gz, .json, .parquet, folders of `datasets`")
    format: str = Field("auto", description="format of the rows; auto: the first that a row looks like")
    kind: Literal["normal", "gold", "qualification"] = Field(
        "normal", description="gold, qualification: verdicts in the rows become known answers"
    )
    source: str | None = Field(None, description="where the rows come from, a name; none: that of the first file")
    consent: str = Field(
        "published by its source", description="on what ground judgments of people are kept; becomes a consent text"
    )
    screen: Screen = Field(
        "replace", description="personal data: replace by placeholders, drop the row, or hold it for a reviewer"
    )
    presidio: bool = Field(False, description="look for names and addresses too: Presidio, where it is installed")
    skip_bad_rows: bool = Field(False, description="write bad rows aside instead of stopping at the first")


class FeedbackExport(StoreConfig, frozen=True, extra="forbid"):
    """Settings of `accord feedback export`."""

    campaign: str = Field(description="name of the campaign, or PROJECT/NAME")
    out: Path = Field(description="folder to write to")
    form: Literal["demonstrations", "rankings", "comparisons", "judgments", "conversations"] = Field(
        "rankings", description="kind of rows"
    )
    unit: Literal["annotator", "share", "consensus"] = Field(
        "annotator", description="a row per judgment, per share of the annotators (comparisons), or per item"
    )
    ties: Literal["drop", "half"] = Field("drop", description="a tie gives no pair, or one of probability 1/2")
    failed: Literal["last", "drop"] = Field("last", description="a failed response loses, or is left out")
    guideline: str | None = Field(None, description="only judgments under this version")
    min_annotators: int = Field(1, ge=1, description="items with fewer are left out")
    min_agreement: float | None = Field(
        None, description="items whose pairwise agreement is lower, or unknown, are left out"
    )
    agreed_only: bool = Field(False, description="only pairs that all annotators of the item put in the same order")
    include_excluded: bool = Field(False, description="judgments of excluded annotators too, marked in `meta`")
    all_revisions: bool = Field(False, description="earlier revisions of judgments too; else the latest ones")
    held_out_prompts: float = Field(
        0.0, ge=0, lt=1, description="share of prompts kept apart, near-duplicates together"
    )
    held_out_annotators: float = Field(0.0, ge=0, lt=1, description="share of annotators kept apart")
    hash_annotators: bool = Field(False, description="pseudonyms become keyed hashes, which no other campaign shares")
    seed: str = Field("accord", description="of the split")
    table: Literal["jsonl", "parquet", "datasets"] = Field("jsonl", description="what is written, one per split")


class AgreementConfig(StoreConfig, frozen=True, extra="forbid"):
    """Settings of `accord feedback agreement`."""

    campaign: str = Field(description="name of the campaign, or PROJECT/NAME")
    out: Path | None = Field(
        None, description="folder for agreement.html, agreement.json, consensus.jsonl; none: the terminal only"
    )


class FeedbackSample(CampaignTarget, frozen=True, extra="forbid"):
    """Settings of `accord feedback sample`."""

    models: tuple[str, ...] = Field(
        description="models that respond: run, folder, hub id, wheel:NAME, or http://HOST/v1#MODEL"
    )
    prompts: tuple[Path, ...] = Field(description="files of prompts, or of records that have one")
    count: int = Field(1, ge=1, description="responses of each model to a prompt")
    limit: int | None = Field(None, ge=1, description="prompts taken from the files; none: all")
    temperature: float = Field(1.0, ge=0, description="divides the logits; 0: the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="smallest set of tokens with this probability is sampled from")
    max_new_tokens: int = Field(256, ge=1, description="tokens of a response at most")
    seed: int = Field(0, description="of the sampling")
    batch: int = Field(16, ge=1, description="prompts between two transactions; what is stored survives a kill")
    api_key_env: str | None = Field(None, description="environment variable with the key of a server")
    screen: Screen = Field(
        "replace", description="personal data: replace by placeholders, drop the row, or hold it for a reviewer"
    )


class PrioritiseConfig(StoreConfig, frozen=True, extra="forbid"):
    """Settings of `accord feedback prioritise`."""

    campaign: str = Field(description="name of the campaign, or PROJECT/NAME")
    by: Literal["disagreement", "uncertainty", "diversity", "scores"] = Field(
        description="entropy of the votes; how unsure a reward model is (--scores); distance to what is judged; a file"
    )
    scores: Path | None = Field(
        None, description='JSONL, a row per item: {"item", "score"}, {"item", "probability"} or {"item", "rewards"}'
    )
    reward_model: str | None = Field(
        None, description="NAME or NAME@REVISION that rewards of the file are kept under; none: the file's name"
    )
    random_share: float = Field(0.2, ge=0, le=1, description="share of items that stays random, to measure quality on")


class ForgetConfig(StoreConfig, frozen=True, extra="forbid"):
    """Settings of `accord feedback forget`."""

    user: str = Field(description="handle, pseudonym, address or id of the person")
    yes: bool = Field(False, description="do it without asking; it cannot be undone")


class ExploreConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of `accord data explore`."""

    files: tuple[Path, ...] = Field(description="chat logs: ShareGPT, WildChat, or rows with a prompt")
    out: Path = Field(Path("explore"), description="folder for explore.html, explore.json and clusters.jsonl")
    compare: tuple[Path, ...] | None = Field(
        None, description="a second set on the same map, e.g. of task collections; none: only one"
    )
    clusters: int | None = Field(None, ge=2, description="number of clusters; none: sqrt(n/2), from 4 to 60")
    embedding: Literal["auto", "tf-idf", "sentence-transformers"] = Field(
        "auto", description="what texts are placed by; auto: sentence-transformers if `model` names one"
    )
    model: str | None = Field(None, description="name of a sentence-transformers model; none: TF-IDF")
    screen: Literal["replace", "drop", "off"] = Field(
        "replace", description="personal data: replace by placeholders, or drop the conversation"
    )
    presidio: bool = Field(False, description="look for names and addresses too: Presidio, where it is installed")
    near_duplicates: float = Field(
        0.8, gt=0, le=1, description="share of 5-word shingles that makes two first turns one; 1: equal ones only"
    )
    per_user: int = Field(
        200, ge=1, description="conversations of one person at most, where the logs tell people apart"
    )
    map_points: int = Field(5000, ge=10, description="points placed by t-SNE; the others stand among their neighbours")
    seed: int = Field(0, description="of the clusters and the map")
    skip_bad_rows: bool = Field(False, description="write bad rows aside instead of stopping at the first")
    campaign: str | None = Field(None, description="make a campaign of the selection: its name, or PROJECT/NAME")
    pick: tuple[int, ...] | None = Field(None, description="clusters the campaign takes; none: all, stratified")
    items: int = Field(100, ge=1, description="prompts of the campaign")
    task: TaskType = Field("demonstrate", description="kind of task of the campaign")
    database: str = Field("sqlite:///feedback.db", description="address of the store, for the campaign")
