"""Data in and out: the common file formats of alignment data to validated records, and records to files."""

from accord.data.files import DataError
from accord.data.formats import Kind
from accord.data.readers import BadRow, FileReport, ReadResult, read, read_rows
from accord.data.writers import to_columns, write, write_bad_rows

__all__ = [
    "BadRow",
    "DataError",
    "FileReport",
    "Kind",
    "ReadResult",
    "read",
    "read_rows",
    "to_columns",
    "write",
    "write_bad_rows",
]
