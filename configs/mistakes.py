"""A validation error of pydantic in the words of somebody who writes YAML: key, value, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

PATTERNS = {
    r"^[a-z][a-z0-9_]*$": "use lower-case letters, digits and _, a letter first",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": "use letters, digits, _, . and -, a letter or digit first",
    r"^[\w.-]+\.png$": "give the name of a .png file in the same folder",
}
"""What the patterns of our schemas ask for."""
SECTION = "give a section (lines of `key: value`)"
WORDS: Mapping[str, str] = {
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_parsing_size": "give a smaller whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "string_type": "give text",
    "string_too_short": "give text of at least {min_length} character(s)",
    "string_too_long": "give text of at most {max_length} characters",
    "too_short": "give at least {min_length} item(s)",
    "too_long": "give at most {max_length} items",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give {ge} or more",
    "less_than": "give less than {lt}",
    "less_than_equal": "give {le} or less",
    "dict_type": SECTION,
    "model_type": SECTION,
    "dataclass_type": SECTION,
    "model_attributes_type": SECTION,
    "list_type": "give a list, such as [a, b]",
    "tuple_type": "give a list, such as [a, b]",
    "string_unicode": "give text that UTF-8 can say (it holds half of a surrogate pair)",
    "invalid_key": "give keys that are text",
    "none_required": "leave it empty",
}
"""By pydantic's kind of error; names in braces are of its context."""
NOT_OFFERED: Mapping[str, str] = {
    "trainer.steps_per_generation": "every optimiser step learns from a whole batch; for more steps on as many images "
    "give fewer rollout.prompts_per_step, and for more steps on the same ones trainer.num_iterations",
    "trainer.gradient_accumulation_steps": "give trainer.micro_batch_size, rollouts of one forward pass",
    "trainer.num_generations": "give rollout.group_size",
}
"""TRL's keys that a run has under another name or not at all, and what to give instead."""
OBJECT = 'give an object, such as {"key": 1}'
"""What a section is in JSON."""
KINDS: Mapping[str, str] = {
    "arms": "a study; `blip3o-grpo ablate` takes it",
    "captions": "a warm start; `blip3o-grpo warmstart` takes it",
    "trainer": "a run; `blip3o-grpo train` takes it",
}
"""A key that tells what kind of file it stands in."""


def kind_mistaken(errors: Sequence[Mapping[str, Any]]) -> str | None:
    """What kind of file this is, where it lacks keys of the expected kind and has one that tells another."""
    unknown = [error["loc"][0] for error in errors if error["type"] == "extra_forbidden" and len(error["loc"]) == 1]
    lacking = any(error["type"] == "missing" and len(error["loc"]) == 1 for error in errors)
    return next((f"this is the file of {KINDS[key]}" for key in KINDS if lacking and key in unknown), None)


def mistake_in_words(
    error: Mapping[str, Any], fields_at: Callable[[Sequence[str | int]], list[str]], *, json: bool = False
) -> str:
    """One entry of `ValidationError.errors()` as a sentence.

    Args:
        error: the entry.
        fields_at: known keys of the section at a location.
        json: it is about JSON, which has objects where YAML has sections.
    """
    kind, context, location = error["type"], error.get("ctx", {}), error["loc"]
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        if key in NOT_OFFERED:
            return f"unknown key {key!r}: {NOT_OFFERED[key]}"
        known = fields_at(location[:-1])
        given = str(location[-1])
        short = [name for name in known if "_" in name and given == "".join(part[:1] for part in name.split("_"))]
        near = short or difflib.get_close_matches(given, known, n=1, cutoff=0.5)  # `lr` is no misspelt `lora`
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}" if known else ""
        return f"unknown key {key!r}{hint}"
    if kind == "missing":
        return f"{key!r} is required"
    if kind == "value_error":  # our own validators name the key themselves
        return str(context["error"])
    if kind == "union_tag_not_found":
        return f"{key!r} is {shown(error['input'], json=json)} that does not say its `type`"
    if kind == "union_tag_invalid":
        return f"'{key}.type' is {context['tag']!r}; allowed: {context['expected_tags']}"
    asked = OBJECT if json and WORDS.get(kind) == SECTION else _asked(kind, context, error)
    return f"{repr(key) if key else 'it'} is {shown(error['input'], json=json)}; {asked}"


def first_mistake(error: ValidationError, *, json: bool = False) -> str:
    """The first mistake of values that no schema of ours names the keys of, such as a run's own files."""
    return mistake_in_words(error.errors()[0], lambda _: [], json=json)


def _asked(kind: str, context: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        allowed = context["expected"]
        words = [word.strip("'") for word in allowed.replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(error["input"]), words, n=1, cutoff=0.5)
        return (f"did you mean {near[0]!r}? " if near else "") + f"allowed: {allowed}"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"it must match {context['pattern']}")
    if kind in WORDS:
        return WORDS[kind].format(**{name: _number(value) for name, value in context.items()})
    message = error["msg"]
    return message[:1].lower() + message[1:]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: Any, *, json: bool = False) -> str:
    """A value in a message, as YAML has it: texts and numbers, cut off if long; of all else only its kind."""
    if value is None:
        return "null" if json else "empty"
    if isinstance(value, dict | list | tuple):
        return kind_of(value, json=json)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def kind_of(value: Any, *, json: bool = False) -> str:
    """What a value of a YAML or JSON file is, in words."""
    if value is None:
        return "null" if json else "nothing"
    if isinstance(value, bool):
        return "true or false"
    kinds = {
        dict: "an object" if json else "a section",
        list: "a list",
        tuple: "a list",
        str: "text",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")
