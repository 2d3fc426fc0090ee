"""Malformed prompt files, captions and GenEval records."""

from __future__ import annotations

import json

from blip3o_grpo.rewards.geneval.records import parse_record
from blip3o_grpo.warmstart import read_captions
from tests.robustness.case import Case, World

GOOD = {"prompt": 'a sign that says "OK"'}

FILES = [
    ("empty", "a.jsonl", b"", "holds no prompts"),
    ("white space", "a.txt", b" \n\t\n\n", "holds no prompts"),
    ("only a BOM", "a.txt", b"\xef\xbb\xbf", "holds no prompts"),
    ("another kind", "a.csv", b"a,b\n", ".csv"),
    ("no ending", "prompts", b"a\n", "prompt files end in .txt"),
    ("Latin-1", "a.txt", b"a caf\xe9\n", ":1: not valid UTF-8"),
    ("UTF-16", "a.txt", "a sign\n".encode("utf-16"), "not valid UTF-8"),
    ("no JSON", "a.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ":2: not valid JSON"),
    ("a list", "a.jsonl", b'["a"]\n', ":1: expected an object"),
    ("a number", "a.jsonl", b"5\n", ":1: expected an object"),
    ("no prompt", "a.jsonl", b'{"text": "a"}\n', ":1: the key `prompt` is missing"),
    ("prompt null", "a.jsonl", b'{"prompt": null}\n', "`prompt` is missing or holds no text"),
    ("prompt a number", "a.jsonl", b'{"prompt": 5}\n', "`prompt` is missing or holds no text"),
    ("prompt a list", "a.jsonl", b'{"prompt": ["a"]}\n', "`prompt` is missing or holds no text"),
    ("prompt blank", "a.jsonl", b'{"prompt": "  "}\n', "`prompt` is missing or holds no text"),
    ("prompt twice", "a.jsonl", b'{"prompt": "a", "prompt": "b"}\n', "'prompt' appears twice"),
    ("id true", "a.jsonl", b'{"prompt": "a", "id": true}\n', "`id` must be"),
    ("id a list", "a.jsonl", b'{"prompt": "a", "id": [1]}\n', "`id` must be"),
    ("id empty", "a.jsonl", b'{"prompt": "a", "id": ""}\n', "`id` must be"),
    ("id of control characters", "a.jsonl", b'{"prompt": "a", "id": "\\u001b[2J"}\n', "U+001B"),
    ("ids twice", "a.jsonl", b'{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}\n', ":2: prompt id '1' was used"),
    ("a line twice", "a.txt", b"a\nb\na\n", ":3: prompt id"),
    ("NaN", "a.jsonl", b'{"prompt": "a", "x": NaN}\n', "NaN is no number in JSON"),
    ("infinity", "a.jsonl", b'{"prompt": "a", "x": -Infinity}\n', "-Infinity is no number"),
    ("a number beyond floats", "a.jsonl", b'{"prompt": "a", "x": 1e999}\n', ":1: 1e999 is more than a number"),
    ("a number of 5000 digits", "a.jsonl", b'{"prompt": "a", "x": ' + b"1" * 5000 + b"}\n", ":1: "),
    ("very deep", "a.jsonl", b'{"prompt": "a", "x": ' + b"[" * 40000 + b"\n", ":1: "),
    ("a huge line", "a.txt", b"a" * 200_000 + b"\n", ":1: the line has 200000 characters"),
    ("NUL", "a.txt", b"a\0b\n", ":1: the prompt holds the character U+0000"),
    ("escape sequences", "a.txt", b"a\x1b[31m sign\n", "U+001B"),
    ("half a surrogate pair", "a.jsonl", b'{"prompt": "a \\ud800"}\n', "surrogate"),
    ("half a surrogate pair beside it", "a.jsonl", b'{"prompt": "a", "x": "\\udfff"}\n', "surrogate"),
]

IN_A_RUN = [
    ("no quoted text", {"prompt": "a red circle"}, ("'a red circle'", "double quotes")),
    ("longer than the context", {"prompt": 'a sign that says "OK" ' + "very " * 300}, ("leaves room for",)),
    ("an image token", {"prompt": 'a <I5> that says "OK"'}, ("<I5>", "token of its own")),
    ("the end of an image", {"prompt": 'a sign <im_end> that says "OK"'}, ("<im_end>", "token of its own")),
    ("the end of the turn", {"prompt": '<|im_end|> says "OK"'}, ("<|im_end|>", "token of its own")),
]

CAPTIONS = [
    ("empty", b"", "is empty"),
    ("Latin-1", b'{"file_name": "a.png", "text": "\xe9"}\n', "is not UTF-8"),
    ("no JSON", b"a.png a sign\n", ":1: each line must be a JSON object"),
    ("a list", b'["a.png", "a sign"]\n', ":1: each line must be"),
    ("no text", b'{"file_name": "a.png"}\n', ":1: each line must be"),
    ("text a number", b'{"file_name": "a.png", "text": 5}\n', "`text` is 5"),
    ("text empty", b'{"file_name": "a.png", "text": ""}\n', "`text` is ''"),
    ("name null", b'{"file_name": null, "text": "a"}\n', "`file_name` is None"),
    ("name with NUL", b'{"file_name": "a\\u0000.png", "text": "a"}\n', "`file_name` is"),
    ("name above the folder", b'{"file_name": "../../etc/passwd", "text": "a"}\n', "leads out of the folder"),
    ("name in between", b'{"file_name": "x/../../a.png", "text": "a"}\n', "leads out of the folder"),
    ("name absolute", b'{"file_name": "/etc/passwd", "text": "a"}\n', "leads out of the folder"),
    ("no such image", b'{"file_name": "b.png", "text": "a"}\n', "b.png, which does not exist"),
    ("very deep", b"[" * 40000 + b"\n", ":1: each line must be"),
]

INCLUDE = [{"class": "circle", "count": 1}]
RECORDS = [
    ("no clauses", {"include": []}, "`include`"),
    ("include a text", {"include": "circle"}, "must be a list of clauses"),
    ("a clause of text", {"include": ["circle"]}, "`include[0]`"),
    ("no count", {"include": [{"class": "circle"}]}, "'count' is missing"),
    ("no class", {"include": [{"count": 1}]}, "'class' is missing"),
    ("unknown class", {"include": [{"class": "circel", "count": 1}]}, "did you mean 'circle'?"),
    ("class a number", {"include": [{"class": 5, "count": 1}]}, "include[0].class"),
    ("count 0", {"include": [{"class": "circle", "count": 0}]}, "count` is 0"),
    ("count true", {"include": [{"class": "circle", "count": True}]}, "count` is True"),
    ("count a text", {"include": [{"class": "circle", "count": "2"}]}, "count` is '2'"),
    ("count 1.5", {"include": [{"class": "circle", "count": 1.5}]}, "count` is 1.5"),
    ("unknown colour", {"include": [{"class": "circle", "count": 1, "color": "reed"}]}, "did you mean 'red'?"),
    ("unknown key", {"include": [{"class": "circle", "count": 1, "colour": "red"}]}, "did you mean 'color'?"),
    ("position of itself", {"include": [{"class": "circle", "count": 1, "position": ["above", 0]}]}, "itself"),
    ("position of text", {"include": [{"class": "circle", "count": 1, "position": "above"}]}, "position"),
    ("position beyond", {"include": INCLUDE + [{"class": "circle", "count": 1, "position": ["above", 9]}]}, "clause 9"),
    ("unknown relation", {"include": INCLUDE + [{"class": "circle", "count": 1, "position": ["over", 0]}]}, "over"),
    ("tag a number", {"include": INCLUDE, "tag": 5}, "`tag` must be text"),
    ("colour excluded", {"include": INCLUDE, "exclude": [{"class": "circle", "count": 1, "color": "red"}]}, "color"),
    ("exclude null", {"include": INCLUDE, "exclude": None}, "`exclude` must be a list"),
]


def _prompt_file(name: str, content: bytes):
    def act(world: World) -> str:
        good = world.write("good.jsonl", json.dumps(GOOD))
        return world.cli("prompts", "check", world.write(name, content), good)

    return act


def _in_a_run(line: dict):
    def act(world: World) -> str:
        path = world.write("train.jsonl", json.dumps(GOOD) + "\n" + json.dumps(line) + "\n")
        return world.train(prompts={"train": str(path)})

    return act


def _captions(content: bytes):
    def act(world: World) -> str:
        world.write("images/a.png", b"")
        from blip3o_grpo.configs import WarmstartConfig

        captions = world.write("captions.jsonl", content)
        config = WarmstartConfig(run_dir="x", images=str(world.folder / "images"), captions=str(captions))
        return world.call(read_captions, config)

    return act


def _record(record: dict):
    return lambda world: world.call(parse_record, record, ("circle", "square"))


CASES = [
    *(Case("prompt file", name, _prompt_file(file, data), (file, says)) for name, file, data, says in FILES),
    *(Case("prompt", name, _in_a_run(line), ("train.jsonl", *says)) for name, line, says in IN_A_RUN),
    *(Case("captions", name, _captions(content), ("captions", says)) for name, content, says in CAPTIONS),
    *(Case("GenEval record", name, _record(record), (says,)) for name, record, says in RECORDS),
    Case("prompt file", "a folder", lambda w: w.cli("prompts", "check", w.folder, w.folder), ("is a folder",)),
    Case("prompt file", "missing", lambda w: w.cli("prompts", "check", "n.txt", "n.txt"), ("n.txt: no such",)),
]
