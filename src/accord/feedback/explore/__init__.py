"""What people ask: chat logs as a map of clusters, and campaigns made of them. docs/explorer.md is the guide.

    found = explore(read_logs(["chats.jsonl"]).logs)
    write_exploration(found, Path("explore"))

No torch is loaded; scikit-learn places the texts, or a sentence-transformers model where one is installed and named.
"""

from accord.feedback.explore.campaign import fill_campaign
from accord.feedback.explore.exploration import Exploration, Point, choose, explore
from accord.feedback.explore.page import write_exploration
from accord.feedback.explore.prepare import Prepared, prepare

__all__ = ["Exploration", "Point", "Prepared", "choose", "explore", "fill_campaign", "prepare", "write_exploration"]
