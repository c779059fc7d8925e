"""A language model behind an OpenAI-compatible server: generates, scores, embeds.

How a server tells log-probabilities is found out once, at the first question, and `method` says it afterwards:

    echo    completions with the prompt echoed: the log-probability of every token of a continuation (plain strings)
    top     log-probabilities of the likeliest first tokens: labels such as (A) and (B) only, see `labels.from_top`
    votes   neither: five answers are sampled, and a label's probability is its share of them

Chat messages are rendered by the server, so their continuations cannot be echoed: they begin at `top`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from accord.labels import TopTokens, from_top, from_votes
from accord.protocols import LanguageModel, Prompt, Reply, Sampling, Usage
from accord.servers.client import Client, NotThere, RequestFailed

__all__ = ["ServerModel"]

VOTES = 5
TOP = 20  # the most an OpenAI server gives
REFUSALS = 8  # so many without one answer are not about their prompts
FIRST_TOKENS = 4  # a space and a bracket may come before the label

Method = Literal["echo", "top", "votes"]
Asked = TypeVar("Asked")
Got = TypeVar("Got")


class ServerModel(LanguageModel):
    """A model of an OpenAI-compatible server. Satisfies `Generate`, `Score` and, by `embed`, `Embed`.

    Example: `ServerModel("http://127.0.0.1:8000/v1", "Qwen/Qwen3-8B")`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key_env: str | None = "OPENAI_API_KEY",
        concurrency: int = 8,
        votes: int = VOTES,
        **client: Any,
    ) -> None:
        """Keep the address; nothing is asked yet unless the model has to be looked up.

        Args:
            url: base of the server, with its version path, such as "http://127.0.0.1:8000/v1".
            model: id of the model there; none: the only one the server has.
            api_key_env: name of the environment variable that holds the key; keys come from nowhere else.
            concurrency: requests under way at once at most.
            votes: answers sampled where a server tells no log-probabilities.
            client: `timeout`, `retries`, `patience` and others of `Client`.

        Raises:
            ValueError: a key in the URL, or several models and none named.
        """
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{url}: no address of a server; expected http://HOST:PORT/v1")
        if address.username or address.password:
            raise ValueError(f"the URL of {address.hostname} holds a password; put it into an environment variable")
        self.url = urlunsplit(address._replace(query="", fragment="")).rstrip("/")
        self.client = Client(self.url, api_key_env=api_key_env, **client)
        self.model = model or self._only_model()
        self.concurrency, self.votes = concurrency, votes
        self._methods: dict[str, Method] = {}
        self._refused = 0
        self._unread: dict[Prompt, str] = {}
        self._fell_back: set[Prompt] = set()  # to votes, because first tokens could not tell the labels apart
        self._usage, self._counting = Usage(), threading.Lock()

    @property
    def name(self) -> str:
        """Model id and where it is served. Servers tell no revision of the weights."""
        return f"{self.model} @ {self.url}"

    @property
    def usage(self) -> Usage:
        """Requests, and tokens as the server counts them."""
        return self._usage

    @property
    def method(self) -> str:
        """How log-probabilities were had so far; "not asked" before the first question."""
        return " and ".join(sorted(set(self._methods.values()))) or "not asked"

    def method_of(self, prompt: Prompt) -> str:
        """Of prompts of this kind; votes where the first tokens could not tell."""
        return "votes" if prompt in self._fell_back else self._methods.get(_kind(prompt), self.method)

    def unread(self, prompt: Prompt) -> str | None:
        """What was said in place of a label when a prompt was last scored."""
        return self._unread.get(prompt)

    def generate(self, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> list[list[Reply]]:
        """Answer prompts, one request a reply (many servers give only one), reply k with a seed of its own."""
        asked = [(prompt, number) for prompt in prompts for number in range(count)]
        replies = self._parallel(lambda one: self._reply(one[0], sampling, one[1]), asked)
        self._check_refusals(replies)
        return [replies[start : start + count] for start in range(0, len(replies), count)]

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Score continuations by the best way the server has."""
        asked = list(zip(prompts, continuations, strict=True))
        for prompt, texts in asked:  # the first question of each kind finds out how
            if _kind(prompt) not in self._methods:
                self._methods[_kind(prompt)] = self._probe(prompt, texts)
        return self._parallel(lambda one: self._scores(*one), asked)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text. Raises: ValueError: the server gives none."""
        parts = [list(texts[start : start + 64]) for start in range(0, len(texts), 64)]
        return [vector for part in self._parallel(self._embed, parts) for vector in part]

    def __call__(self, prompts: Sequence[Any], *asked: Any, **named: Any) -> Any:
        """Generate if sampling is given, score if continuations are, embed texts alone."""
        return super().__call__(prompts, *asked, **named) if asked or named else self.embed(prompts)

    # -- replies -------------------------------------------------------------------------------------------------------

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Reply]:
        """Yield a reply as the server sends it; closing the iterator closes the connection."""
        path, question = self._question(prompt)
        body = {"model": self.model, **question, **_settings(sampling, 0), "stream": True}
        started = time.perf_counter()
        said, finish = "", None
        try:
            for event in self.client.events(path, body):
                for choice in event.get("choices") or ():
                    piece = (
                        choice.get("text") if isinstance(prompt, str) else (choice.get("delta") or {}).get("content")
                    )
                    said, finish = said + (piece or ""), choice.get("finish_reason") or finish
                    yield _grown(_before(said, sampling.stop), "length", started)
        except RequestFailed as failed:
            yield _failed(failed, started)
            return
        with self._counting:
            self._usage.add(0, 0)  # a stream counts no tokens
        yield _grown(_before(said, sampling.stop), "length" if finish in ("length", None) else "stop", started)

    def _reply(self, prompt: Prompt, sampling: Sampling, number: int) -> Reply:
        started = time.perf_counter()
        try:
            answer = self._complete(prompt, _settings(sampling, number))
            choice = answer["choices"][0]
            said = _said(choice, prompt)
        except NotThere as failed:
            raise ValueError(f"{self.name}: {failed}; check the address (most end in /v1) and the model") from None
        except RequestFailed as failed:
            return _failed(failed, started)
        prompt_tokens, new_tokens = _tokens_used(answer)
        return Reply(
            text=_before(said, sampling.stop),
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            seconds=time.perf_counter() - started,
        )

    def _check_refusals(self, replies: Sequence[Reply]) -> None:
        """A server that refuses request after request and answers none has no quarrel with the prompts."""
        self._refused += sum(reply.finish == "error" for reply in replies)
        if self._usage.requests == 0 and self._refused >= REFUSALS:
            raise ValueError(
                f"{self.name}: refused {self._refused} requests and answered none: {replies[-1].error}; check the "
                "address and the name of the model"
            )

    def _question(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        """Where a prompt goes, and how."""
        if isinstance(prompt, str):
            return "/completions", {"prompt": prompt}
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        return "/chat/completions", {"messages": messages}

    def _complete(self, prompt: Prompt, body: dict[str, Any], retries: int | None = None) -> Any:
        """The server's answer, in which there is a choice."""
        path, question = self._question(prompt)
        answer = self.client.post(path, {"model": self.model, **question, **body}, retries=retries)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RequestFailed("the answer holds no choice")
        with self._counting:
            self._usage.add(*_tokens_used(answer))
        return answer

    # -- scores --------------------------------------------------------------------------------------------------------

    def _probe(self, prompt: Prompt, texts: Sequence[str]) -> Method:
        """The best way that works for a prompt of this kind."""
        try:
            self._complete(prompt, {"max_tokens": 1})  # waits until the server is there: what follows asks impatiently
        except RequestFailed as failed:
            raise ValueError(f"{self.name}: does not answer the first question: {failed}") from None
        if isinstance(prompt, str) and _possible(lambda: self._echoed(prompt, texts[0], retries=1)):
            return "echo"
        return "top" if _possible(lambda: self._top(prompt, retries=1)) else "votes"

    def _scores(self, prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        method = self._methods[_kind(prompt)]
        try:
            if method == "echo":
                assert isinstance(prompt, str)
                return [self._echoed(prompt, text) for text in texts]
            if method == "top":
                tokens = self._top(prompt)
                found = from_top(texts, tokens)
                if found is not None:
                    return self._kept(prompt, found, "".join(said for said, _ in tokens))
                self._fell_back.add(prompt)
            return self._voted(prompt, texts)
        except NotThere as failed:
            raise ValueError(f"{self.name}: {failed}; check the address (most end in /v1) and the model") from None
        except RequestFailed:
            return [None] * len(texts)

    def _echoed(self, prompt: str, text: str, retries: int | None = None) -> float:
        """Log-probability of a text after a prompt, from the log-probabilities of all tokens, echoed."""
        body = {"prompt": prompt + text, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
        answer = self.client.post("/completions", {"model": self.model, **body}, retries=retries)
        try:
            told = answer["choices"][0]["logprobs"]
            rows = list(zip(told["text_offset"], told["token_logprobs"], strict=True))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise RequestFailed(f"the answer echoes no log-probabilities ({error!r})") from None
        end = len(prompt) + len(text)
        # A token that reaches over the seam belongs to the text: it is what the text was read as.
        ends = [offset for offset, _ in rows[1:]] + [end]
        inside = [
            logprob for (offset, logprob), after in zip(rows, ends, strict=True) if after > len(prompt) and offset < end
        ]
        if not rows or rows[0][0] != 0 or not inside or None in inside:
            raise RequestFailed("the answer echoes no log-probabilities of the prompt")
        return float(sum(inside))

    def _top(self, prompt: Prompt, retries: int | None = None) -> TopTokens:
        """The first tokens of a reply with their likeliest rivals."""
        chat = not isinstance(prompt, str)
        asked = {"logprobs": True, "top_logprobs": TOP} if chat else {"logprobs": TOP}
        answer = self._complete(prompt, {"max_tokens": FIRST_TOKENS, "temperature": 0, **asked}, retries)
        try:
            return _first_tokens(answer["choices"][0].get("logprobs") or {})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestFailed(f"the answer holds no log-probabilities ({error!r})") from None

    def _voted(self, prompt: Prompt, texts: Sequence[str]) -> list[float | None]:
        sampling = Sampling(temperature=1.0, max_new_tokens=16)
        replies = [self._reply(prompt, sampling, number) for number in range(self.votes)]
        said = [reply.text for reply in replies if reply.finish != "error"]
        return self._kept(prompt, from_votes(texts, said), "\n".join(said))

    def _kept(self, prompt: Prompt, scores: list[float | None], said: str) -> list[float | None]:
        """The scores; what was said instead of a label is kept."""
        if None in scores:
            self._unread[prompt] = said
        return scores

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _embed(self, texts: list[str]) -> list[list[float]]:
        try:
            rows = self.client.post("/embeddings", {"model": self.model, "input": texts})["data"]
        except (RequestFailed, KeyError, TypeError) as error:
            raise ValueError(f"{self.name}: gives no embeddings ({error})") from None
        return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]

    def _only_model(self) -> str:
        try:
            names = [row["id"] for row in self.client.get("/models")["data"]]
        except (RequestFailed, KeyError, TypeError) as error:
            raise ValueError(f"{self.url}: lists no models ({error}); name one: {self.url}#MODEL") from None
        if len(names) != 1:
            raise ValueError(f"{self.url}: has {len(names)} models, {', '.join(names[:8])}; name one: {self.url}#MODEL")
        return str(names[0])

    def _parallel(self, ask: Callable[[Asked], Got], asked: Iterable[Asked]) -> list[Got]:
        """All answers in order; an error, or Ctrl-C, stops what has not begun and what waits for its next try."""
        self.client.start()
        pool = ThreadPoolExecutor(max_workers=self.concurrency)
        try:
            return list(pool.map(ask, asked))
        except BaseException:
            self.client.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _kind(prompt: Prompt) -> str:
    return "text" if isinstance(prompt, str) else "chat"


def _settings(sampling: Sampling, number: int) -> dict[str, Any]:
    """Sampling as a server is told of it; reply `number` has a seed of its own."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": (sampling.seed * 1_000_003 + number) % 2**31,
        **({"stop": list(sampling.stop)} if sampling.stop else {}),
        **({"presence_penalty": sampling.presence_penalty} if sampling.presence_penalty else {}),
    }


def _grown(text: str, finish: Literal["stop", "length"], started: float) -> Reply:
    seconds = time.perf_counter() - started
    return Reply(text=text, finish=finish, prompt_tokens=0, new_tokens=0, seconds=seconds)


def _failed(failed: RequestFailed, started: float) -> Reply:
    seconds = time.perf_counter() - started
    return Reply(text="", finish="error", prompt_tokens=0, new_tokens=0, seconds=seconds, error=str(failed))


def _possible(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except RequestFailed:
        return False
    return True


def _said(choice: dict[str, Any], prompt: Prompt) -> str:
    """The text of a choice. Raises: RequestFailed: it holds none."""
    try:
        said = choice["text"] if isinstance(prompt, str) else choice["message"]["content"]
        parts = [part.get("text") or "" for part in said] if isinstance(said, list) else [said or ""]
        return "".join(parts)
    except (AttributeError, KeyError, TypeError):
        raise RequestFailed("the answer holds no text") from None


def _tokens_used(answer: dict[str, Any]) -> tuple[int, int]:
    """Of the prompt and of the reply, as the server counts; 0 where it does not."""
    usage = answer.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, new = (count if isinstance(count, int) else 0 for count in counts)
    return prompt, new


def _first_tokens(told: dict[str, Any]) -> TopTokens:
    """The tokens of a reply with their likeliest rivals, in the form of chat or of completions."""
    if told.get("content"):  # the chat form, which some servers use for completions too
        return [
            (one["token"], {rival["token"]: float(rival["logprob"]) for rival in one.get("top_logprobs") or [one]})
            for one in told["content"]
        ]
    if not told.get("top_logprobs"):
        raise ValueError("neither content nor top_logprobs")
    tops = ({token: float(value) for token, value in top.items()} for top in told["top_logprobs"])
    return list(zip(told["tokens"], tops, strict=True))


def _before(text: str, stop: Sequence[str]) -> str:
    """Some servers leave the stop string in the text."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return text[: min(places)] if places else text
