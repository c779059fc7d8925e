"""Data sets as a whole: mixed, without duplicates, without evaluation questions, without bad rows.

Every job here reads a row at a time, keeps what it keeps as it stands, and writes what it removes beside it, with the
reason.
"""
