"""A checkpoint's tokenizer files, in words that the released code's transformers (4.51) knows.

Releases since 5 write `tokenizer_config.json` with a class and keys that older ones refuse or misread; the tokenizer
itself, `tokenizer.json`, is read by both. Files that an older release wrote are left as they are, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

NEWER_CLASS, CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"
"""transformers' name for a tokenizer that is nothing but its `tokenizer.json`: since 5, and the one all know."""
NEWER_KEYS = ("backend", "is_local", "local_files_only")
"""Notes of transformers 5 on how a tokenizer was loaded."""
PATTERNS = (
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "generation_config.json",
)
"""Files beside the weights that the released code reads; `generation_config.json` is carried along and ignored."""


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Take over a checkpoint's tokenizer files."""
    for pattern in PATTERNS:
        for file in filter(Path.is_file, source.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    make_readable(folder)


def make_readable(folder: Path) -> None:
    """Put what transformers 5 or later wrote into `folder` in older words."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    older = older_words(settings)
    if older != settings:
        file.write_text(json.dumps(older, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def older_words(settings: dict[str, Any]) -> dict[str, Any]:
    """`tokenizer_config.json` as transformers 4.51 reads it; one that it can read comes back as it is."""
    older = {key: value for key, value in settings.items() if key not in NEWER_KEYS}
    if older.get("tokenizer_class") == NEWER_CLASS:
        older["tokenizer_class"] = CLASS
    if isinstance(older.get("extra_special_tokens"), list):  # 4.51 wants names for these, and has another key for lists
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older
