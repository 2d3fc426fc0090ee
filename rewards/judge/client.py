"""Asks a judge: any server that speaks OpenAI's `chat/completions` with images (vLLM, SGLang, a hosted one).

`GET URL/models` must list the model; `POST URL/chat/completions` gets one question with its image, or with two to be
compared, as PNG data URLs, at temperature 0. An answer in another form is asked for again, with the form said once
more, and is then an error: never a score. Answers are kept on disk, so that the same question about the same image is
paid for once. A probability is read from the answer's first token, whose likeliest values the server is asked for.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blip3o_grpo.rewards.http.encode import encode_png
from blip3o_grpo.rewards.http.failures import MayPassError, UnreachableError, one_line
from blip3o_grpo.rewards.http.transport import TOO_MANY_REQUESTS, RefusedError, Transport, quoted, run
from blip3o_grpo.rewards.judge.answers import YES, Form, UnparseableError, first_token
from blip3o_grpo.rewards.judge.cache import AnswerCache, answer_key, image_hash
from blip3o_grpo.rewards.judge.options import ASKS, JudgeOptions
from blip3o_grpo.rewards.judge.usage import Usage, count_tokens
from blip3o_grpo.rewards.types import RewardError

_SHOWN = 120
"""Characters of questions and answers in messages."""
_MOST_NAMES = 8
"""More models are not listed in a message."""
_MOST_NATS = 1e6
"""Servers say some thousands for a probability of about 0."""
_TRIAL = "Is this image grey? Answer with exactly yes or no."
_TRIAL_SIZE = 64
"""Pixels a side; some models refuse images of less than 28."""


@dataclass(frozen=True)
class Question:
    """Something to ask about an image, or about two."""

    text: str
    image: np.ndarray
    """`[H, W, 3]` uint8, RGB."""
    form: Form
    second: np.ndarray | None = None
    """Shown after `image`, which may have another size, for questions that compare; None: there is one image only."""

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """In the order in which they are shown."""
        return (self.image,) if self.second is None else (self.image, self.second)

    @property
    def shown(self) -> str:
        """Hash of what is shown; two images in the other order have another."""
        return "+".join(map(image_hash, self.images))


@dataclass(frozen=True)
class Answer:
    """What a judge said."""

    value: Any
    """As the question's form reads it."""
    text: str
    """In its own words; the two probabilities where one of them was asked for."""
    usage: Usage


@dataclass(frozen=True)
class _Said:
    """What came of one request."""

    text: str
    flaw: str | None
    """Why it is no answer, whatever its form."""
    usage: Usage

    @property
    def shown(self) -> str:
        """In messages."""
        words = _short(self.text) if self.text.strip() else "nothing"
        return f"{words} ({self.flaw})" if self.flaw else words


class Judge:
    """One judge, with its connections and its cache.

    Args:
        options: checked ones.

    Raises:
        RewardError: the token's variable is not set, the server is not there, refuses the token, or has no such model.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self._cache = AnswerCache(options.cache)
        self._transport = Transport(
            "judge",
            options.url,
            timeout=options.timeout,
            retries=options.retries,
            patience_s=options.patience_s,
            token_env=options.token_env,
            proxy=options.proxy,
            advice=self._advice,
            busy=(TOO_MANY_REQUESTS,),
        )
        self._open = asyncio.Semaphore(options.concurrency)
        self._lists = run(self._check_model())

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to every question, in their order.

        Raises:
            RewardError: the first failure, in one line; what was answered until then is in the cache.
        """
        urls: dict[int, str] = {}
        waiting, answers = [], []
        for question in questions:
            key = self._key(question)
            answers.append(self._kept(key, question))
            if answers[-1] is None:
                for image in question.images:
                    if id(image) not in urls:
                        urls[id(image)] = _data_url(image)
                waiting.append((key, question, [urls[id(image)] for image in question.images]))
        new = iter(run(self._ask_all(waiting)) if waiting else ())
        return [next(new) if answer is None else answer for answer in answers]

    def try_out(self) -> Usage:
        """One small question, and what it took: a list of models needs no token everywhere, and is not everywhere.

        Any answer will do, as only the real questions know their form.

        Raises:
            RewardError: the server refuses it, or does not answer as a judge does.
        """
        image = np.full((_TRIAL_SIZE, _TRIAL_SIZE, 3), 128, np.uint8)
        return run(self._request(Question(_TRIAL, image, YES), [_data_url(image)], "")).usage

    def _kept(self, key: str, question: Question) -> Answer | None:
        text = self._cache.get(key)
        if text is None:
            return None
        try:
            return Answer(_read(question.form, text), text, Usage(answers=1, cached=1))
        except UnparseableError:  # kept by a version that read it otherwise
            return None

    def _key(self, question: Question) -> str:
        options, form = self.options, question.form
        request = {"extra": dict(options.extra), "max_tokens": form.max_tokens, **_asked_tokens(form)}
        return answer_key(
            {"model": options.model, "version": options.version, **request}, question.text, question.shown
        )

    async def _ask_all(self, waiting: Sequence[tuple[str, Question, list[str]]]) -> list[Answer]:
        tasks = [asyncio.create_task(self._ask_one(*each)) for each in waiting]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _ask_one(self, key: str, question: Question, data_urls: list[str]) -> Answer:
        usage, reminder = Usage(answers=1), ""
        async with self._open:
            for _ in range(self.options.retries + 1):
                said = await self._request(question, data_urls, reminder)
                usage += said.usage
                try:
                    if said.flaw:
                        raise UnparseableError(said.text)
                    value = _read(question.form, said.text)
                except UnparseableError:
                    reminder = f"\n\nAnswer with {question.form.words}, and nothing else."
                    continue
                about = {**self.options.identity, "question": question.text, "image": question.shown}
                self._cache.put(key, said.text, about)
                return Answer(value, said.text, usage)
        raise RewardError(
            f"judge {self.options.model} at {self.options.url} answered {said.shown} instead of {question.form.words} "
            f"({usage.calls} calls); the question was {_short(question.text)}"
        )

    async def _request(self, question: Question, data_urls: list[str], reminder: str) -> _Said:
        content = [
            {"type": "text", "text": question.text + reminder},
            *({"type": "image_url", "image_url": {"url": url}} for url in data_urls),
        ]
        body = {
            "model": self.options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": question.form.max_tokens,
            **_asked_tokens(question.form),
            **self.options.extra,
        }
        try:
            answered = await self._transport.ask("POST", ASKS, json=body)
        except RefusedError as error:
            raise self._refusal(error) from error
        values = self._json(answered, ASKS)
        try:
            choice = values["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text, refusal = message["content"], message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._no_judge(ASKS, answered) from error
        if not isinstance(text, str | None) or not isinstance(refusal, str | None):
            raise self._no_judge(ASKS, answered)
        usage = count_tokens(values.get("usage"), self.options.price_in, self.options.price_out)
        if refusal:  # beside an empty answer
            return _Said(refusal, "a refusal", usage)
        if question.form.num_likeliest:
            return _Said(first_token(self._likeliest(choice, answered)), None, usage)
        return _Said(text or "", "cut off" if reason == "length" else None, usage)

    def _likeliest(self, choice: dict[str, Any], answered: bytes) -> list[tuple[str, float]]:
        """The likeliest first tokens of an answer, each with the logarithm of its probability."""
        try:
            told = choice["logprobs"]["content"][0]["top_logprobs"]
            found = [(entry["token"], entry["logprob"]) for entry in told]
        except (KeyError, IndexError, TypeError):
            found = []
        if not found:
            raise RewardError(
                f"judge {self.options.model} at {self.options.url} tells no log-probabilities of its first token "
                "(top_logprobs), from which a probability is read; ask it for yes_no instead"
            )
        if not all(isinstance(token, str) and _is_logprob(logprob) for token, logprob in found):
            raise self._no_judge(ASKS, answered)
        return found

    async def _check_model(self) -> bool:
        """Whether the server lists its models; the one that is asked for is then among them."""
        try:
            answered = await self._transport.ask("GET", "/models")
        except RefusedError as error:
            if error.status in (404, 405):  # a server may list nothing; its first answer then tells
                return False
            raise self._refusal(error) from error
        values = self._json(answered, "/models")
        entries = values.get("data")
        if not isinstance(entries, list):
            raise self._no_judge("/models", answered)
        names = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        if self.options.model not in names:
            near = difflib.get_close_matches(self.options.model, names, n=1, cutoff=0.5)
            listed = ", ".join(map(_short, names[:_MOST_NAMES])) or "none"
            hint = f"did you mean {_short(near[0])}?" if near else f"it has: {listed}"
            raise RewardError(f"{self.options.url} has no model {_short(self.options.model)}; {hint}")
        return True

    def _json(self, answered: bytes, path: str) -> dict[str, Any]:
        try:
            values = json.loads(answered)
        except (ValueError, RecursionError) as error:
            raise self._no_judge(path, answered) from error
        if not isinstance(values, dict):
            raise self._no_judge(path, answered)
        return values

    def _no_judge(self, path: str, answered: bytes) -> RewardError:
        url = f"{self.options.url.rstrip('/')}{path}"
        return RewardError(f"{url} did not answer as an OpenAI-compatible server does: {quoted(answered)}")

    def _refusal(self, error: RefusedError) -> RewardError:
        """What a server's no means for its user."""
        if error.status in (401, 403):
            variable = self.options.token_env
            why = (
                f"the token in {variable} is wrong, has expired or may not use it"
                if variable
                else "it wants a token; name the variable that holds it in token_env"
            )
            return RewardError(f"judge {self.options.model}: {why}: {error}")
        if error.status == 404:
            version = "" if self._lists else "does the url end in /v1? "  # all that is known is that nothing is there
            return RewardError(f"judge: {version}is the model {_short(self.options.model)} there? {error}")
        return error

    def _advice(self, failure: MayPassError) -> str:
        """Which option changes what happened."""
        if isinstance(failure, UnreachableError):
            return f"start the judge's server, or raise patience_s (now {self.options.patience_s:g})"
        if failure.slow:
            return (
                f"raise timeout (now {self.options.timeout:g}), or lower concurrency (now {self.options.concurrency})"
            )
        return f"its own log says more; retries is {self.options.retries}, concurrency {self.options.concurrency}"


def _read(form: Form, text: str) -> Any:
    """What an answer says; half of a surrogate pair makes it none: no file could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnparseableError(text) from error
    return form.read(text)


def _asked_tokens(form: Form) -> dict[str, Any]:
    """What a request asks for beside the words, if it does."""
    return {"logprobs": True, "top_logprobs": form.num_likeliest} if form.num_likeliest else {}


def _is_logprob(value: Any) -> bool:
    """A number that is none of NaN, infinity (but for a probability of 0) and what no float holds."""
    return type(value) in (int, float) and (value == -math.inf or abs(value) < _MOST_NATS)


def _data_url(image: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def _short(text: str) -> str:
    text = one_line(text)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
