"""Revisions of the schema, one file each, upwards only. A revision that was released is never edited."""
