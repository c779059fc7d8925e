"""A model server made of one function, without a network, and a client whose waits take no time."""

from __future__ import annotations

import json

import httpx2

from accord.servers import ServerModel

URL = "http://model.test/v1"


class Waits:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def client_options(answer, waits: Waits | None = None, **more):
    """`answer(path, body)` returns a JSON object, events, a status, (status, headers), or raises a transport error."""
    waits = waits or Waits()

    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content) if request.content else None
        said = answer(request.url.path.removeprefix("/v1"), body)
        if isinstance(said, int):
            return httpx2.Response(said, json={"error": {"message": "so it is"}})
        if isinstance(said, str):
            return httpx2.Response(200, text=said, headers={"Content-Type": "text/event-stream"})
        if isinstance(said, tuple):
            return httpx2.Response(said[0], headers=said[1], json={})
        return httpx2.Response(200, json=said)

    return {"transport": httpx2.MockTransport(handle), "sleep": waits.sleep, "clock": waits.clock, **more}


def served(answer, waits: Waits | None = None, **more) -> ServerModel:
    return ServerModel(URL, "m", **client_options(answer, waits, **more))


def chat_answer(text: str, finish: str = "stop", **more):
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def text_answer(text: str, finish: str = "stop", **more):
    return {"choices": [{"text": text, "finish_reason": finish, **more}], "usage": {}}
