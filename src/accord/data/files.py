"""Data files -> numbered rows of parsed JSON, one at a time, and their hashes. What the rows mean is not known here."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Broken", "DataError", "check_path", "rows", "sha256", "without_nulls"]

_READABLE = ".jsonl, .json, .csv, .tsv (each also .gz but .json), .parquet, or a folder saved by `datasets`"
_NAMES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
_LONGEST_CELL = 2**24  # characters; csv's own limit, 131,072, is shorter than some documents


class DataError(ValueError):
    """Data that cannot be used; the message says where, what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Broken:
    """A line that is no JSON: its text as far as it can be read, and what is wrong with it."""

    text: str
    message: str


def check_path(path: Path) -> None:
    """Raise DataError unless the path is there and of a kind that can be read."""
    if not path.exists():
        neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, neighbours, n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else "check the path"
        raise DataError(f"{path}: no such file or folder; {hint}")
    if path.is_dir():
        _check_folder(path)
    elif not path.name.endswith(_NAMES):
        raise DataError(f"{path}: cannot read a file of this name; expected {_READABLE}; convert or rename it")
    elif path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; expected at least one row; check what wrote it")


def _check_folder(path: Path) -> None:
    if (path / "dataset_dict.json").exists():
        splits = ", ".join(sorted(str(child) for child in path.iterdir() if child.is_dir()))
        raise DataError(f"{path}: a folder of several data sets; expected one; give one of {splits}")
    if not (path / "dataset_info.json").exists():
        raise DataError(
            f"{path}: a folder, but not one saved by `datasets`; expected {_READABLE}; give the files in it"
        )


def rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number, row) of a file that `check_path` let through; numbers count from 1, lines where there are lines.

    A line that is no JSON comes as `Broken`. Blank lines are passed over.

    Raises:
        DataError: The file as a whole is damaged.
    """
    if path.is_dir():
        yield from _folder_rows(path)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".json":
        yield from _list_rows(path)
    elif path.name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        yield from _table_rows(path)
    elif path.suffix == ".gz":
        yield from _gzip_rows(path)
    else:
        with path.open("rb") as file:
            yield from _lines(file)


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, _json(line)
        except ValueError as error:
            text = line.decode("utf-8-sig", errors="replace").strip()
            advice = "name a file that holds one list .json" if text.startswith("[") else "correct the line"
            yield number, Broken(text, f"{error}, found {text[:40]!r}; expected one JSON object a line; {advice}")


def _json(data: bytes) -> Any:
    """Parse JSON, or raise ValueError saying where it ends to be any."""
    try:
        return json.loads(data.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
        raise ValueError(f"not UTF-8 ({place}; iconv converts such files)") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"no JSON ({place}: {error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise ValueError(f"no JSON ({error})") from None


def _gzip_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with gzip.open(path, "rb") as file:
            yield from _lines(file)
    except EOFError:
        raise DataError(f"{path}: the compressed file ends too early; expected a whole one; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not a sound gzip file ({error}); rename it if it is plain, or fetch it again"
        ) from None


def _table_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a table with a header; every value is text, numbers count from 1 below the header."""
    opener = gzip.open if path.suffix == ".gz" else open
    separator = "\t" if ".tsv" in path.suffixes[-2:] else ","
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=separator, strict=separator == ",")
            for number, row in enumerate(reader, 1):
                wide, narrow = None in row, None in row.values()
                if wide or narrow:
                    found = f"{'more' if wide else 'fewer'} cells than the header's {len(reader.fieldnames or ())}"
                    yield number, Broken(json.dumps(row, default=str), f"{found}; quote cells that hold a separator")
                else:
                    yield number, row
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: not a sound table ({error}); expected UTF-8 with a header; export it again") from None


def _list_rows(path: Path) -> Iterator[tuple[int, Any]]:
    data = path.read_bytes()
    if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):  # many .json files hold one object a line
        yield from _lines(io.BytesIO(data))
        return
    try:
        value = _json(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected a list of objects; mend the file") from None
    if not isinstance(value, list):
        raise DataError(f"{path}: found one {type(value).__name__}; expected a list of objects; wrap it in [ ]")
    yield from enumerate(value, 1)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=1000))
            yield from enumerate((without_nulls(row) for batch in batches for row in batch), 1)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a sound Parquet file ({error}); write it again") from None


def _folder_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        from datasets import load_from_disk
    except ImportError:
        raise DataError(f"{path}: reading this folder needs `datasets`; pip install 'accord-align[datasets]'") from None
    try:
        table = load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{path}: `datasets` cannot load the folder ({error}); save it again") from None
    yield from enumerate((without_nulls(row) for row in table), 1)


def without_nulls(value: Any) -> Any:
    """Return a row of a table without the null fields: every column exists in every row, said or not."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and bytes of a folder's files, in hexadecimal."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    parts: Iterable[Path] = sorted(part for part in path.rglob("*") if part.is_file())
    return hashlib.sha256("".join(f"{part.relative_to(path)} {sha256(part)}\n" for part in parts).encode()).hexdigest()
