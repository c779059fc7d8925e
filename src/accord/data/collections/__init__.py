"""Judged data as other projects publish it, and chat logs: rows -> what was judged and what was said of it.

    for found in read_collection(["trees.jsonl"]).rows: ...

`formats.FORMATS` has a line per format. Times that a format does not tell are `UNKNOWN_TIME`.
"""

from accord.data.collections.collected import UNKNOWN_TIME, Asked, Collected, Opinion
from accord.data.collections.formats import FORMATS, CollectionFile, read_collection
from accord.data.collections.logs import ChatLog, read_logs

__all__ = [
    "FORMATS",
    "UNKNOWN_TIME",
    "Asked",
    "ChatLog",
    "Collected",
    "CollectionFile",
    "Opinion",
    "read_collection",
    "read_logs",
]
