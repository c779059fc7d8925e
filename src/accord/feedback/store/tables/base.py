"""What all tables share: names of constraints, kinds of columns, and the list of tables nobody may change."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from accord.feedback.store.ids import new_id, now_ms

__all__ = ["APPEND_ONLY", "Base", "Millis", "Record", "one_of", "reference"]

# Triggers refuse UPDATE and DELETE on these, on both databases: what was said, agreed to or decided stays as it was.
APPEND_ONLY = ("judgment", "consent", "consent_text", "guideline", "turn", "review", "event")

Millis = Annotated[int, mapped_column(BigInteger)]  # UTC milliseconds


class Base(DeclarativeBase):
    """The tables of the store."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Record(Base):
    """A table whose rows have an id and the time they were made."""

    __abstract__ = True
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id, sort_order=-2)
    created_at: Mapped[Millis] = mapped_column(default=now_ms, sort_order=-1)


def reference(table: str, *, optional: bool = False, key: bool = False) -> Any:
    """A column that holds the id of a row of `table`."""
    return mapped_column(String(36), ForeignKey(f"{table}.id"), nullable=optional, primary_key=key)


def one_of(column: str, *values: str) -> CheckConstraint:
    """A constraint: the column holds one of these words."""
    return CheckConstraint(f'"{column}" IN ({", ".join(repr(value) for value in values)})', name=column)
