"""Settings of campaigns: what is stored in `campaign.settings`."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["CampaignSettings"]


class CampaignSettings(BaseModel, frozen=True, extra="forbid"):
    """How a campaign runs. Frozen once it has a judgment. Example: `CampaignSettings(gold_every=6)`."""

    gold_every: int = Field(12, ge=0, description="1 in so many tasks is a gold item, where there are any; 0: none")
    attention_every: int = Field(40, ge=0, description="1 in so many tasks is an attention check; 0: none")
    teach: bool = Field(False, description="explain gold items after submission")
    pass_mark: float = Field(0.75, ge=0, le=1, description="share of qualification items that have to be right")
    attempts: int = Field(2, ge=1, description="attempts at the qualification")
    pilot_items: int = Field(20, ge=1, description="items everybody gets first while the campaign is a pilot")
    attention_window: int = Field(10, ge=1, description="attention checks looked back on")
    attention_failures: int = Field(2, ge=1, description="failures among them that pause an annotator")
    examples: tuple[str, ...] = Field((), description="demonstrate: good responses that can be read beside the task")
    attributes_first: bool = Field(False, description="rank: each response is described before all are ranked")
    span_tags: tuple[str, ...] = Field(
        ("wrong", "made up", "unclear", "good"), description="rank: what a marked passage can be; none: no marking"
    )
    hourly_rate: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="price of an hour of annotators' work; 0: no costs are shown"
    )
    revise_hours: int = Field(24, ge=0, description="hours in which an annotator may revise a judgment")
