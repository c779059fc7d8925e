"""Requests survive a bad moment of the server, and say plainly when it is more than a moment."""

import httpx2
import pytest

from accord.protocols import Unavailable
from accord.servers import Client
from accord.servers.client import RequestFailed
from servers.served import URL, Waits, client_options


def client_of(answers, waits=None, **more):
    """A server that gives these answers one after the other, the last one for ever."""
    given = list(answers)
    said = []

    def answer(path, body):
        said.append((path, body))
        one = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(one, Exception):
            raise one
        return one

    return Client(URL, **client_options(answer, waits, **more)), said


def test_what_passes_is_tried_again_after_growing_random_waits():
    waits = Waits()
    client, said = client_of([429, 503, httpx2.ConnectError("refused"), {"ok": 1}], waits)
    assert client.post("/x", {"a": 1}) == {"ok": 1}
    assert len(said) == 4
    assert all(0 <= wait <= 2**number for number, wait in enumerate(waits.waits))
    assert len(set(waits.waits)) == 3


def test_retry_after_is_honoured():
    waits = Waits()
    client, _ = client_of([(429, {"Retry-After": "17"}), {"ok": 1}], waits)
    client.post("/x", {})
    assert waits.waits == [17.0]


def test_a_refusal_is_not_tried_again_and_keeps_the_servers_words():
    client, said = client_of([400])
    with pytest.raises(RequestFailed, match="status 400: so it is"):
        client.post("/x", {})
    assert len(said) == 1


def test_a_dead_server_is_unavailable_after_its_patience_not_before():
    waits = Waits()
    client, _ = client_of([{"ok": 1}, httpx2.ConnectError("refused")], waits, patience=300)
    client.post("/x", {})
    with pytest.raises(Unavailable, match="nothing got through"):
        client.post("/x", {})
    assert 300 < waits.now < 300 + 60


def test_a_server_that_never_was_there_is_not_waited_for_long():
    waits = Waits()
    client, _ = client_of([httpx2.ConnectError("refused")], waits, patience=300)
    with pytest.raises(Unavailable):
        client.post("/x", {})
    assert 30 < waits.now < 90


def test_one_request_that_always_fails_is_given_up_while_the_server_is_well():
    waits = Waits()

    def answer(path, body):
        return {"data": []} if path == "/models" else 500

    client = Client(URL, **client_options(answer, waits))
    with pytest.raises(RequestFailed, match="status 500, after 7 tries"):
        client.post("/x", {})
    assert len(waits.waits) == 6


def test_one_request_that_always_fails_is_given_up_while_others_get_through():
    def answer(path, body):
        return 503 if path == "/bad" else {"ok": 1}

    class Busy(Waits):
        """While one request waits, another gets through."""

        def sleep(self, seconds):
            super().sleep(seconds)
            client.post("/good", {})

    waits = Busy()
    client = Client(URL, **client_options(answer, waits, patience=10**9))
    with pytest.raises(RequestFailed, match="status 503, after 7 tries"):
        client.post("/bad", {})


def test_a_missing_key_is_named_and_a_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "s3cret-value")
    client, _ = client_of([401], api_key_env="TEST_KEY")
    with pytest.raises(ValueError, match="TEST_KEY holds a key it does not take") as caught:
        client.post("/x", {})
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ValueError, match="TEST_KEY is not set"):
        client.post("/x", {})


def test_the_key_travels_in_the_header_only(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "s3cret-value")
    seen = []

    def handle(request):
        seen.append((request.headers.get("Authorization"), str(request.url)))
        return httpx2.Response(200, json={})

    Client(URL, api_key_env="TEST_KEY", transport=httpx2.MockTransport(handle)).post("/x", {})
    assert seen == [("Bearer s3cret-value", f"{URL}/x")]
