"""What a campaign's judgments are worth: agreement, bias, consensus, suspicious annotators, learning gain.

    material = store.read(gather, campaign_id=campaign)
    report = analyse(material)

Everything is a pure function of the judgments. Figures come from `accord.evaluate`; docs/feedback.md explains them.
"""

from accord.feedback.analysis.consensus import ItemConsensus, consensus
from accord.feedback.analysis.material import Annotator, Material, gather
from accord.feedback.analysis.report import CampaignReport, analyse
from accord.feedback.analysis.rogue import Evidence, Suspect, suspects

__all__ = [
    "Annotator",
    "CampaignReport",
    "Evidence",
    "ItemConsensus",
    "Material",
    "Suspect",
    "analyse",
    "consensus",
    "gather",
    "suspects",
]
