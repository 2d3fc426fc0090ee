"""A minimal HTTP server that speaks the part of OpenAI's protocol that a judge needs. No model: a function answers."""

import asyncio
import base64
import io
import math
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

from tests.rewards.http.speaking import listening

TOKEN = "s3cret-token"
TOLD = {"prompt_tokens": 100, "completion_tokens": 2}


@dataclass
class Served:
    """What a server was asked."""

    url: str = ""
    requests: list[dict] = field(default_factory=list)
    """Bodies."""
    most_open: int = 0
    """Requests at the same time."""

    @property
    def questions(self):
        return [body["messages"][0]["content"][0]["text"] for body in self.requests]


def pictures(body):
    """The images of a request, in their order."""
    for part in body["messages"][0]["content"][1:]:
        kind, _, data = part["image_url"]["url"].partition(",")
        assert kind == "data:image/png;base64"
        yield np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def likeliest(*tokens):
    """The body of an answer that tells its likeliest first tokens: pairs of a token and its probability."""
    told = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in tokens]
    logprobs = {"content": [{**told[0], "top_logprobs": told}]}
    choice = {"index": 0, "message": {"role": "assistant", "content": tokens[0][0]}, "finish_reason": "length"}
    return {"object": "chat.completion", "choices": [{**choice, "logprobs": logprobs}], "usage": TOLD}


@contextmanager
def judging(
    reply,
    *,
    models=("tiny-judge",),
    token=None,
    usage=TOLD,
    delay_s=0.0,
    lists=True,
    lists_to_all=False,
    finish="stop",
):
    """A server whose answers are `reply(question, *images)`: a text, None, the whole body, or a response.

    With `lists_to_all` its list of models needs no token.
    """
    app, served, open_now = FastAPI(), Served(), [0]

    def refused(request):
        if token is not None and request.headers.get("authorization") != f"Bearer {token}":
            shown = request.headers.get("authorization", "")
            return JSONResponse({"error": {"message": f"invalid api key: {shown}"}}, 401)

    @app.get("/v1/models")
    def list_models(request: Request):
        if not lists:
            return JSONResponse({"detail": "Not Found"}, 404)
        return (not lists_to_all and refused(request)) or {
            "object": "list",
            "data": [{"id": name, "object": "model"} for name in models],
        }

    @app.post("/v1/chat/completions")
    async def complete(request: Request):
        if answer := refused(request):
            return answer
        body = await request.json()
        if body["model"] not in models:
            return JSONResponse({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        served.requests.append(body)
        open_now[0] += 1
        served.most_open = max(served.most_open, open_now[0])
        await asyncio.sleep(delay_s)
        open_now[0] -= 1
        said = reply(body["messages"][0]["content"][0]["text"], *pictures(body))
        if isinstance(said, JSONResponse | dict):
            return said
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": finish}
        return {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}

    with listening(app) as url:
        served.url = f"{url}/v1"
        yield served


def block(served, **more):
    """Options of a judge at this server."""
    return {"url": served.url, "model": "tiny-judge", "version": "1", "patience_s": 0.05, **more}
