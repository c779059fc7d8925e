"""Migrations: rows of the first schema are read by the newest, and both ways to a store lead to the same columns."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from accord.feedback.store import Store, database, keep_rewards, rewarded, verdicts
from accord.feedback.store.tables import APPEND_ONLY, Base, Item, Judgment, Prompt
from feedback.databases import empty_database

FIRST = (
    """INSERT INTO "user" (id, created_at, handle, pseudonym, is_admin) VALUES ('u', 1, 'ada', 'p7', false)""",
    """INSERT INTO project (id, created_at, slug, settings, on_withdrawal)
       VALUES ('p', 1, 's', '{}', 'keep_verdicts')""",
    """INSERT INTO consent_text (id, created_at, project_id, version, markdown) VALUES ('t', 1, 'p', 1, 'ok?')""",
    """INSERT INTO consent (id, created_at, user_id, consent_text_id, action, uses, at)
       VALUES ('k', 1, 'u', 't', 'given', '[]', 1)""",
    """INSERT INTO guideline (id, created_at, project_id, version, markdown, note) VALUES ('g', 1, 'p', 1, 'x', '')""",
    """INSERT INTO prompt (id, created_at, project_id, content_hash, messages, source, pii)
       VALUES ('q', 1, 'p', 'h', '[{"role": "user", "content": "2+2="}]', 'test', 'clean')""",
    """INSERT INTO response (id, created_at, prompt_id, content_hash, text, origin)
       VALUES ('a', 1, 'q', 'a', '4', 'imported')""",
    """INSERT INTO response (id, created_at, prompt_id, content_hash, text, origin)
       VALUES ('b', 1, 'q', 'b', '5', 'imported')""",
    """INSERT INTO campaign (id, created_at, project_id, name, task_type, settings, guideline_id, overlap,
       lease_minutes, queue_seed, secret, state)
       VALUES ('c', 1, 'p', 'n', 'rank', '{}', 'g', 3, 30, 's', 's', 'open')""",
    """INSERT INTO item (id, created_at, campaign_id, prompt_id, content_hash, kind, priority, state)
       VALUES ('i', 1, 'c', 'q', 'h', 'normal', 0, 'open')""",
    """INSERT INTO item_response (item_id, response_id, position, created_at) VALUES ('i', 'a', 0, 1)""",
    """INSERT INTO item_response (item_id, response_id, position, created_at) VALUES ('i', 'b', 1, 1)""",
)  # fmt: skip
JUDGMENT = """INSERT INTO judgment (id, created_at, item_id, annotator_id, source, revision, payload, display_order,
    guideline_id, consent_id, started_at, submitted_at, touched, counted, client_key)
    VALUES (:id, 1, 'i', 'u', 'human', :revision, :payload, '["b", "a"]', 'g', 'k', 1, 2, true, true, :key)"""
PAYLOADS = ('{"ranks": {"a": 1, "b": 2}}', '{"ranks": {"a": 1, "b": null}}', '{"ranks": {"a": 1, "b": 1}}')


@pytest.fixture
def first_store(address):
    """A store of the first schema with three judgments in it."""
    engine = create_engine(address)
    with engine.begin() as connection:
        database.upgrade(connection, "0001")
        for statement in FIRST:
            connection.exec_driver_sql(statement)
        for number, payload in enumerate(PAYLOADS, 1):
            values = {"id": f"j{number}", "key": f"k{number}", "revision": number, "payload": payload}
            connection.execute(text(JUDGMENT), values)
    engine.dispose()
    return address


def test_three_judgments_of_the_first_schema_are_read_by_the_newest(first_store):
    store = Store.open(first_store)
    found = store.read(verdicts, campaign_id="c", all_revisions=True)
    assert [verdict.ranks for verdict in found] == [{"a": 1, "b": 2}, {"a": 1, "b": None}, {"a": 1, "b": 1}]
    assert {(verdict.annotator, verdict.display_order, verdict.guideline) for verdict in found} == {
        ("p7", ("b", "a"), "1")
    }
    assert {verdict.session for verdict in found} == {None}  # nobody knows of them
    assert store.read(lambda session: (session.get(Item, "i").arm, session.get(Prompt, "q").author_id)) == (
        "random",
        None,
    )
    store.close()


def test_a_store_of_the_fourth_schema_takes_judgments_with_their_login(first_store):
    engine = create_engine(first_store)
    with engine.begin() as connection:
        database.upgrade(connection, "0004")
        assert "session_id" not in {column["name"] for column in inspect(connection).get_columns("judgment")}
    engine.dispose()
    store = Store.open(first_store)
    values = JUDGMENT.replace("client_key)", "client_key, session_id)").replace(":key)", ":key, 's')")
    with store.engine.begin() as connection:
        connection.execute(text(values), {"id": "j4", "key": "k4", "revision": 4, "payload": PAYLOADS[0]})
    found = store.read(verdicts, campaign_id="c", all_revisions=True)
    assert [verdict.session for verdict in found] == [None, None, None, "s"]
    with pytest.raises(IntegrityError, match="append-only"), store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE judgment SET session_id = 't'")
    store.run(keep_rewards, campaign_id="c", model="rm", rewards={"i": {"a": 0.5, "b": -2.0}})  # of the sixth
    assert [one.ranks for one in store.read(rewarded, campaign_id="c")] == [{"a": 1, "b": 2}]
    store.close()


def columns(engine):
    """Of each table: columns with type and nullability, primary key, unique sets, foreign keys, indexed columns."""
    look = inspect(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLite cannot say what the index on lower(email) holds
        return {
            table: (
                {(c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(table)},
                look.get_pk_constraint(table)["constrained_columns"],
                {tuple(u["column_names"]) for u in look.get_unique_constraints(table)},
                {(tuple(f["constrained_columns"]), f["referred_table"]) for f in look.get_foreign_keys(table)},
                {c["name"] for c in look.get_check_constraints(table)},
                {(i["name"], tuple(i["column_names"]), bool(i["unique"])) for i in look.get_indexes(table)},
            )
            for table in look.get_table_names()
            if table != "alembic_version"
        }


def test_a_new_store_an_upgraded_one_and_the_models_have_the_same_columns(first_store, tmp_path, kind, server):
    with empty_database(kind, server, tmp_path) as made, empty_database(kind, server, tmp_path) as new:
        stores = [Store.open(first_store), Store.open(new)]
        models = create_engine(made)
        Base.metadata.create_all(models)
        upgraded, fresh, wanted = (columns(engine) for engine in (stores[0].engine, stores[1].engine, models))
        assert upgraded == fresh
        assert fresh == wanted
        assert len(wanted) == 29
        models.dispose()
        with stores[0].engine.connect() as connection, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        for store in stores:
            store.close()


@pytest.mark.parametrize("change", ["UPDATE {} SET created_at = 5", "DELETE FROM {}"])
def test_evidence_can_be_neither_changed_nor_deleted(first_store, change):
    store = Store.open(first_store)
    assert set(APPEND_ONLY) >= {"judgment", "consent", "guideline", "event"}
    for table in ("judgment", "consent", "consent_text", "guideline"):
        with pytest.raises(IntegrityError, match=f"{table} is append-only"), store.engine.begin() as connection:
            connection.exec_driver_sql(change.format(table))
    assert len(store.read(lambda session: session.scalars(select(Judgment)).all())) == 3
    store.close()


def test_a_store_that_is_newer_than_the_code_is_refused_with_both_versions(address):
    Store.open(address).close()
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(ValueError, match=rf"schema 9999; this version of accord knows {database.newest_revision()}"):
        Store.open(address)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql+pymysql://u@h/n"])
def test_other_databases_are_refused(url):
    with pytest.raises(ValueError, match="expected"):
        Store.open(url)


def test_the_constraints_hold_where_the_code_does_not_look(first_store):
    """Whoever writes past the queries: a model's verdict cannot look like a person's, two slots cannot be one's."""
    store = Store.open(first_store)
    slot = (
        "INSERT INTO slot (id, created_at, item_id, campaign_id, number, queue, state, annotator_id, expires_at) "
        "VALUES ('{0}', 1, 'i', 'c', {1}, 0, '{2}', {3}, {4})"
    )
    with store.engine.begin() as connection:
        connection.exec_driver_sql(slot.format("s1", 0, "leased", "'u'", 5))
    literal = (
        JUDGMENT.replace(":id", "'x'").replace(":revision", "9").replace(":payload", "'{}'").replace(":key", "'y'")
    )
    bad = [
        slot.format("s2", 1, "done", "'u'", "NULL"),  # the same annotator twice
        slot.format("s2", 0, "open", "NULL", "NULL"),  # the same number twice
        slot.format("s2", 1, "open", "'u'", "NULL"),
        slot.format("s2", 1, "leased", "'u'", "NULL"),
        slot.format("s2", 1, "done", "NULL", "NULL"),
        "UPDATE item SET kind = 'gold'",  # without an expected answer
        "UPDATE campaign SET overlap = 51",
        "UPDATE campaign SET state = 'ready'",
        literal.replace("'u', 'human'", "'u', 'ai'"),
        literal.replace("'k', 1, 2", "NULL, 1, 2"),
    ]  # fmt: skip
    for statement in bad:
        with pytest.raises(IntegrityError), store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    store.close()


def test_the_docs_name_every_table():
    text = (Path(__file__).parents[3] / "docs/feedback.md").read_text(encoding="utf8")
    assert [name for name in Base.metadata.tables if f"`{name}`" not in text] == []
