"""Asks a judge: any server that speaks OpenAI's `chat/completions` with images (vLLM, SGLang, a hosted one).

`GET URL/models` must list the model; `POST URL/chat/completions` gets one question with its image, or with two to be
compared, as PNG data URLs, at temperature 0. An answer in another form is asked for again, with the form said once
more, and is then an error: never a score. Answers are kept on disk, so that the same question about the same image is
paid for once.
"""

from __future__ import annotations

import asyncio
import base64
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blip3o_grpo.rewards.http.encode import encode_png
from blip3o_grpo.rewards.http.failures import MayPassError, UnreachableError, one_line
from blip3o_grpo.rewards.http.transport import TOO_MANY_REQUESTS, RefusedError, Transport, quoted, run
from blip3o_grpo.rewards.judge.answers import Form, UnparseableError
from blip3o_grpo.rewards.judge.cache import AnswerCache, answer_key, image_hash
from blip3o_grpo.rewards.judge.options import JudgeOptions
from blip3o_grpo.rewards.judge.usage import Usage, count_tokens
from blip3o_grpo.rewards.types import RewardError

_SHOWN = 120
"""Characters of questions and answers in messages."""
_MOST_NAMES = 8
"""More models are not listed in a message."""


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
    """In its own words."""
    usage: Usage


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
        run(self._check_model())

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

    def _kept(self, key: str, question: Question) -> Answer | None:
        text = self._cache.get(key)
        if text is None:
            return None
        try:
            return Answer(_read(question.form, text), text, Usage(answers=1, cached=1))
        except UnparseableError:  # kept by a version that read it otherwise
            return None

    def _key(self, question: Question) -> str:
        request = {"extra": dict(self.options.extra), "max_tokens": question.form.max_tokens}
        return answer_key({**self.options.identity, **request}, question.text, question.shown)

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
        usage, text, reminder = Usage(answers=1), "", ""
        async with self._open:
            for _ in range(self.options.retries + 1):
                text, cut_off, took = await self._request(question, data_urls, reminder)
                usage += took
                try:
                    if cut_off:
                        raise UnparseableError(text)
                    value = _read(question.form, text)
                except UnparseableError:
                    reminder = f"\n\nAnswer with {question.form.words}, and nothing else."
                    continue
                about = {**self.options.identity, "question": question.text, "image": question.shown}
                self._cache.put(key, text, about)
                return Answer(value, text, usage)
        said = f"{_short(text)}{' (cut off)' if cut_off else ''}" if text.strip() else "nothing"
        raise RewardError(
            f"judge {self.options.model} at {self.options.url} answered {said} instead of {question.form.words} "
            f"({usage.calls} calls); the question was {_short(question.text)}"
        )

    async def _request(self, question: Question, data_urls: list[str], reminder: str) -> tuple[str, bool, Usage]:
        """One request: the answer's words, whether they were cut off, and what they took."""
        content = [
            {"type": "text", "text": question.text + reminder},
            *({"type": "image_url", "image_url": {"url": url}} for url in data_urls),
        ]
        body = {
            "model": self.options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": question.form.max_tokens,
            **self.options.extra,
        }
        try:
            answered = await self._transport.ask("POST", "/chat/completions", json=body)
        except RefusedError as error:
            raise self._refusal(error) from error
        values = self._json(answered, "/chat/completions")
        try:
            choice = values["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._no_judge("/chat/completions", answered) from error
        if not isinstance(text, str | None):
            raise self._no_judge("/chat/completions", answered)
        usage = count_tokens(values.get("usage"), self.options.price_in, self.options.price_out)
        return text or "", reason == "length", usage

    async def _check_model(self) -> None:
        try:
            answered = await self._transport.ask("GET", "/models")
        except RefusedError as error:
            if error.status in (404, 405):  # a server may list nothing; its first answer then tells
                return
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
            return RewardError(f"judge: is the model {_short(self.options.model)} there? {error}")
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


def _data_url(image: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"


def _short(text: str) -> str:
    text = one_line(text)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
