"""The server client finds out what a server can do, and reads it right."""

import json
import threading
from math import exp, log

import httpx2
import pytest

from accord.protocols import Sampling, Unavailable
from accord.records import Message
from accord.servers import ServerModel
from servers.served import URL, Waits, chat_answer, client_options, served, text_answer

CHAT = (Message(role="user", content="Which?"),)
AB = ("(A)", "(B)")


def test_replies_keep_order_seeds_and_stops():
    asked = []
    lock = threading.Lock()

    def answer(path, body):
        with lock:
            asked.append(body)
        return chat_answer(body["messages"][0]["content"].upper() + "\n\nHuman: more", finish="length")

    model = served(answer)
    prompts = [(Message(role="user", content=word),) for word in ("a", "b", "c")]
    replies = model(prompts, 2, Sampling(seed=4, stop=("\n\nHuman:",), max_new_tokens=9, temperature=0.5))
    assert "presence_penalty" not in asked[0]
    assert [[one.text for one in of_prompt] for of_prompt in replies] == [["A", "A"], ["B", "B"], ["C", "C"]]
    assert {body["seed"] for body in asked} == {4 * 1_000_003, 4 * 1_000_003 + 1}
    assert asked[0]["max_tokens"] == 9
    assert replies[0][0].finish == "length"
    assert replies[0][0].new_tokens == 3


def test_a_presence_penalty_is_sent():
    asked = []
    model = served(lambda path, body: asked.append(body) or chat_answer("fine"))
    model([(Message(role="user", content="a"),)], 1, Sampling(presence_penalty=2.0))
    assert asked[0]["presence_penalty"] == 2.0


def test_a_refused_prompt_is_an_error_reply_and_the_others_go_on():
    def answer(path, body):
        return 400 if body["messages"][0]["content"] == "bad" else chat_answer("fine")

    prompts = [(Message(role="user", content=word),) for word in ("good", "bad")]
    (good,), (bad,) = served(answer)(prompts, 1, Sampling())
    assert good.text == "fine"
    assert bad.finish == "error"
    assert "so it is" in bad.error


def test_echo_sums_the_tokens_behind_the_seam():
    def answer(path, body):
        if not body.get("echo"):
            return text_answer("x")
        text = body["prompt"]
        # one token per character; each costs 1 nat, but B costs 3
        costs = [None] + [-3.0 if character == "B" else -1.0 for character in text[1:]]
        return text_answer(
            text + "!",
            logprobs={"text_offset": list(range(len(text) + 1)), "token_logprobs": [*costs, -9.0]},
        )

    model = served(answer)
    assert model(["Q: B?"], [("(A)", "(B)")]) == [[-3.0, -5.0]]
    assert model.method == "echo"


def test_without_echo_the_first_tokens_tell():
    def answer(path, body):
        if body.get("echo"):
            return 400
        if "top_logprobs" in body:
            rivals = [{"token": "A", "logprob": log(0.9)}, {"token": "B", "logprob": log(0.1)}]
            return chat_answer("A", logprobs={"content": [{"token": "A", "logprob": log(0.9), "top_logprobs": rivals}]})
        return chat_answer("A")

    model = served(answer)
    ((a, b),) = model([CHAT], [AB])
    assert (exp(a), exp(b)) == (pytest.approx(0.9), pytest.approx(0.1))
    assert model.method == "top"


def test_without_log_probabilities_there_are_votes_and_an_internal_error_is_no_outage():
    answers = iter(["x", "(A)", "(B)", "(B)", "(A)", "(B)"])  # the first is the question whether anybody is there

    def answer(path, body):
        if body.get("logprobs") or body.get("echo"):
            return 500
        return chat_answer(next(answers))

    model = served(answer)
    ((a, b),) = model([CHAT], [AB])
    assert (exp(a), exp(b)) == (pytest.approx(0.4), pytest.approx(0.6))
    assert model.method == "votes"


def test_what_could_not_be_read_is_kept():
    def answer(path, body):
        return chat_answer("As an AI I prefer neither.")

    model = served(answer)
    assert model([CHAT], [AB]) == [[None, None]]
    assert model.unread(CHAT).splitlines() == ["As an AI I prefer neither."] * 5


def test_a_server_that_dies_between_questions_stops_the_batch():
    waits, alive = Waits(), [True]

    def answer(path, body):
        if not alive[0]:
            raise httpx2.ConnectError("refused")
        return chat_answer("fine")

    model = served(answer, waits, concurrency=1, patience=120)
    model([CHAT], 1, Sampling())
    alive[0] = False
    with pytest.raises(Unavailable, match="same command again"):
        model([CHAT] * 3, 1, Sampling())


def test_embeddings_come_in_the_order_of_the_texts():
    def answer(path, body):
        rows = [{"index": number, "embedding": [float(len(text))]} for number, text in enumerate(body["input"])]
        return {"data": rows[::-1]}

    assert served(answer)(["a", "bbb"]) == [[1.0], [3.0]]


def test_the_only_model_need_not_be_named_and_several_are_listed():
    one = ServerModel(URL, **client_options(lambda path, body: {"data": [{"id": "solo"}]}))
    assert one.name == f"solo @ {URL}"
    with pytest.raises(ValueError, match=r"2 models, x, y; name one: .*#MODEL"):
        ServerModel(URL, **client_options(lambda path, body: {"data": [{"id": "x"}, {"id": "y"}]}))


def test_a_password_in_the_address_is_refused_without_being_shown():
    with pytest.raises(ValueError, match="holds a password") as caught:
        ServerModel("https://me:pa55@host/v1", "m")
    assert "pa55" not in str(caught.value)


def test_labels_that_first_tokens_cannot_tell_apart_say_that_they_are_votes():
    def answer(path, body):
        if body.get("logprobs"):
            rivals = [{"token": "1", "logprob": log(0.9)}, {"token": "2", "logprob": log(0.1)}]
            return chat_answer("1", logprobs={"content": [{"token": "1", "logprob": log(0.9), "top_logprobs": rivals}]})
        return chat_answer("10")

    model = served(answer)
    model.score_labels([CHAT], [("(1)", "(2)", "(10)")])
    assert model.method == "top"
    assert model.method_of(CHAT) == "votes"


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": ["text"]},
        {"choices": {"message": "x"}},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": []},
        ["no", "object"],
    ],
)
def test_an_answer_of_another_form_is_an_error_reply_and_the_others_go_on(body):
    def answer(path, asked):
        return body if asked["messages"][0]["content"] == "bad" else chat_answer("fine")

    prompts = [(Message(role="user", content=word),) for word in ("good", "bad")]
    (good,), (bad,) = served(answer)(prompts, 1, Sampling())
    assert (good.text, bad.text, bad.finish) == ("fine", "", "error")
    assert "the answer holds no" in bad.error


def test_no_text_parts_of_a_text_and_usage_of_another_form_are_read():
    said = iter([None, [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]])

    def answer(path, asked):
        return {"choices": [{"message": {"content": next(said)}}], "usage": "plenty"}

    ((none, parts),) = served(answer, concurrency=1)([CHAT], 2, Sampling())
    assert (none.text, none.error, parts.text) == ("", None, "in parts")


@pytest.mark.parametrize(
    "told",
    [
        {"content": [{"token": "A"}]},
        {"content": [{"token": "A", "logprob": None}]},
        {"content": [7]},
        {"tokens": ["A"], "top_logprobs": [None]},
        {"tokens": ["A", "B"], "top_logprobs": [{"A": -1.0}]},
        {"other": 1},
        "text",
    ],
)
def test_log_probabilities_of_another_form_are_none(told):
    """The server is then one that has none: it votes."""
    model = served(lambda path, asked: chat_answer("(A)", logprobs=told if asked.get("logprobs") else None))
    assert model([CHAT], [AB])[0][0] == 0.0
    assert model.method == "votes"


@pytest.mark.parametrize("status", [404, 402])
def test_a_model_that_is_not_there_stops_the_job_instead_of_losing_every_row(status):
    model = served(lambda path, asked: status)
    with pytest.raises(ValueError, match=f"status {status}: so it is"):
        model([CHAT] * 3, 1, Sampling())


def test_a_model_that_is_gone_stops_the_scoring_too():
    there = [True]

    def answer(path, asked):
        rivals = [{"token": "A", "logprob": -0.1}]
        return chat_answer("A", logprobs={"content": rivals}) if there[0] else 404

    model = served(answer)
    model.score_labels([CHAT], [AB])
    there[0] = False
    with pytest.raises(ValueError, match="check the address"):
        model.score_labels([CHAT], [AB])


def test_a_server_that_refuses_everything_stops_the_job():
    model = served(lambda path, asked: 400)
    for _ in range(7):
        assert model([CHAT], 1, Sampling())[0][0].finish == "error"
    with pytest.raises(ValueError, match="refused 8 requests and answered none: status 400: so it is"):
        model([CHAT], 1, Sampling())


def test_many_refusals_among_answers_are_about_their_prompts():
    model = served(lambda path, asked: chat_answer("x") if asked["messages"][0]["content"] == "good" else 400)
    good, bad = ((Message(role="user", content=word),) for word in ("good", "bad"))
    assert model([good, *[bad] * 9], 1, Sampling())[0][0].text == "x"
    assert model([bad], 1, Sampling())[0][0].finish == "error"


def events(*pieces: str, finish: str = "stop") -> str:
    rows = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    rows.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    return ": hello\n\n" + "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + "data: [DONE]\n\n"


def test_a_stream_grows_and_ends_as_the_server_says():
    asked = []
    model = served(lambda path, body: asked.append((path, body)) or events("It ", "is ", "B"))
    replies = list(model.stream(CHAT, Sampling(seed=4, max_new_tokens=9)))
    assert [reply.text for reply in replies] == ["It ", "It is ", "It is B", "It is B", "It is B"]
    assert {reply.finish for reply in replies[:-1]} == {"length"}
    assert replies[-1].finish == "stop"
    path, body = asked[0]
    assert (path, body["stream"], body["max_tokens"], body["seed"]) == ("/chat/completions", True, 9, 4 * 1_000_003)
    (*_, last) = served(lambda path, body: events("cut", finish="length")).stream(CHAT, Sampling())
    assert (last.text, last.finish) == ("cut", "length")


def test_a_stream_that_is_refused_or_no_json_is_an_error_reply():
    (refused,) = served(lambda path, body: 400).stream(CHAT, Sampling())
    assert (refused.finish, refused.text) == ("error", "")
    assert "so it is" in refused.error
    (*_, broken) = served(lambda path, body: "data: {nonsense\n\n").stream(CHAT, Sampling())
    assert (broken.finish, broken.error) == ("error", "an event that is no JSON")
