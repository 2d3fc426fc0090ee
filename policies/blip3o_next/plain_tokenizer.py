"""A checkpoint's tokenizer and chat template read without transformers, for checks that come before large imports.

Offers of transformers' tokenizers what `PromptEncoder` uses, under the same names: `tokenizer.json` is read by the
`tokenizers` library, which transformers uses too, and the template is rendered by Jinja's sandbox.
"""

from __future__ import annotations

import datetime
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer

from blip3o_grpo.configs.regular_files import is_regular, read_text


class PlainTokenizer:
    """What transformers would make of a folder's tokenizer files.

    Raises:
        Exception: whatever the `tokenizers` library raises for a broken file; ValueError, OSError, KeyError likewise.
    """

    def __init__(self, folder: Path):
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        file = folder / "tokenizer_config.json"
        settings = json.loads(read_text(file)) if is_regular(file) else {}
        added = sorted((int(number), token) for number, token in settings.get("added_tokens_decoder", {}).items())
        for number, token in added:
            if self._tokenizer.id_to_token(number) is None:
                self._tokenizer.add_tokens([AddedToken(**token)])
        self.added_tokens_encoder = {
            token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        template = folder / "chat_template.jinja"
        self._template = read_text(template) if is_regular(template) else settings["chat_template"]
        if isinstance(self._template, list):  # several, by name
            self._template = {entry["name"]: entry["template"] for entry in self._template}["default"]
        self._special = {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in settings.items()
            if key.endswith("_token") and isinstance(value, str | dict)
        }

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """The messages as the model reads them; `tokenize` must be false."""
        return self._compiled.render(messages=messages, add_generation_prompt=add_generation_prompt, **self._special)

    @cached_property
    def _compiled(self) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        return environment.from_string(self._template)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
