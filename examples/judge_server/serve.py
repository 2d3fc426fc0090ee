"""Serves any function `(image, question) -> answer` as a judge: the part of OpenAI's protocol that judges need.

    python serve.py mplug:answer --model mplug-large --port 8000

For models that no OpenAI-compatible server knows, in an environment of their own: it imports nothing of ours, and
needs fastapi, uvicorn and pillow. One question at a time; it listens on this machine only and asks for no token.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from PIL import Image

Answer = Callable[[Image.Image, str], str]


def create_app(answer: Answer, model: str) -> FastAPI:
    """A server of one model under one name."""
    app, one_at_a_time = FastAPI(), threading.Lock()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model, "object": "model"}]}

    @app.post("/v1/chat/completions")
    def complete(body: dict[str, Any]) -> dict[str, Any]:
        if body.get("model") != model:
            raise HTTPException(404, f"The model `{body.get('model')}` does not exist.")
        question, image = read_question(body)
        with one_at_a_time:
            said = answer(image, question)
        message = {"role": "assistant", "content": said}
        return {
            "object": "chat.completion",
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }

    return app


def read_question(body: dict[str, Any]) -> tuple[str, Image.Image]:
    """Question and picture of a request; answers 422 where it holds anything else."""
    try:
        text, picture = body["messages"][0]["content"]
        kind, _, data = picture["image_url"]["url"].partition(",")
        if kind != "data:image/png;base64":
            raise ValueError("the image must be a PNG data URL")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG",)).convert("RGB")
        return str(text["text"]), image
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise HTTPException(422, f"expected one text and one PNG data URL: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("function", help="module:function, in this folder or installed")
    parser.add_argument("--model", required=True, help="name under which judges ask for it")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    module, _, name = options.function.partition(":")
    answer: Answer = getattr(importlib.import_module(module), name)
    uvicorn.run(create_app(answer, options.model), host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
