"""What hypothesis makes up: whatever comes in, what comes out is an error for users, or something valid.

Properties, not a table; counted apart from `test_malformed_inputs.py`.
"""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.configs import ConfigError, RunConfig, load_run_config
from blip3o_grpo.policies.blip3o_next.checkpoint import Weights
from blip3o_grpo.policies.blip3o_next.json_files import CheckpointError
from blip3o_grpo.rewards import RewardBatch, RewardError, score
from blip3o_grpo.rewards.geneval import Record, parse_record
from blip3o_grpo.rewards.http.client import RemoteReward
from blip3o_grpo.rewards.images import ImageFileError, open_rgb
from blip3o_grpo.rollout import PromptError, load_prompts
from blip3o_grpo.rollout.records import read_step
from blip3o_grpo.rollout.types import RolloutError
from tests.robustness.cases_images import png
from tests.robustness.cases_runs import Returns

EXAMPLES = 25
often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
KEYS = [f"{name}.{key}" for name, field in RunConfig.model_fields.items() for key in
        getattr(field.annotation, "model_fields", {})] + list(RunConfig.model_fields)  # fmt: skip


@often
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_as_a_recipe(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="recipe.yaml"):
        load_run_config(path)


@often
@given(st.sampled_from(KEYS), plain)
def test_any_value_for_any_key(shared, tmp_path, key, value):
    """Refused, or taken: then writing it out and reading it again gives the same."""
    recipe, _, _ = shared
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    try:
        config = load_run_config(path, [f"{key}={json.dumps(value)}"])
    except ConfigError as error:
        assert str(error).strip()
    else:
        assert RunConfig.model_validate(config.model_dump()) == config


@often
@given(st.sampled_from([".txt", ".jsonl"]), st.binary(max_size=80) | plain.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_as_prompts(tmp_path, suffix, content):
    path = tmp_path / f"prompts{suffix}"
    path.write_bytes(content)
    try:
        prompts = load_prompts(path)
    except PromptError as error:
        assert path.name in str(error)
    else:
        assert prompts and all(prompt.id and prompt.text.strip() for prompt in prompts)
        assert len({prompt.id for prompt in prompts}) == len(prompts)


@often
@given(plain)
def test_any_value_as_a_geneval_record(value):
    for metadata in ({"include": value}, {"include": [value]}, {"include": [{"class": "circle", "count": value}]}):
        try:
            assert isinstance(parse_record(metadata, ("circle",)), Record)
        except RewardError as error:
            assert "include" in str(error)


@often
@given(st.binary(max_size=60), st.integers(0, 200), plain)
def test_any_header_of_a_checkpoint(tmp_path, noise, length, header):
    text = json.dumps(header).encode()
    for content in (noise, struct.pack("<Q", length) + noise, struct.pack("<Q", len(text)) + text + noise):
        (tmp_path / "model.safetensors").write_bytes(content)
        try:
            assert Weights(tmp_path).shapes is not None  # `{}` is a header: a file without tensors
        except CheckpointError as error:
            assert "model.safetensors" in str(error)


@often
@given(plain)
def test_any_index_of_shards(tmp_path, value):
    path = tmp_path / "model.safetensors.index.json"
    path.unlink(missing_ok=True)
    for content in (value, {"weight_map": value}, {"weight_map": {"a": value}}):
        path.write_text(json.dumps(content))
        try:
            assert Weights(tmp_path).files == {}
        except CheckpointError as error:
            assert path.name in str(error)


@often
@given(st.data())
def test_any_damage_to_an_image(tmp_path, data):
    """Refused, or read into the pixels that its header promises."""
    content = bytearray(png(size=(16, 16)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "image.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = open_rgb(path)
    except ImageFileError as error:
        assert "image.png" in str(error)
    else:
        assert image.mode == "RGB" and image.width * image.height > 0


BATCH = RewardBatch([np.zeros((2, 2, 3), np.uint8)] * 2, ["a", "b"], [{}, {}])


def checked(scores):
    assert len(scores) == 2
    assert all(value is None or (type(value) is float and np.isfinite(value)) for value in scores)


@often
@given(plain | st.lists(scalars, min_size=2, max_size=2))
def test_anything_a_reward_may_return(value):
    try:
        checked(score(Returns(value), BATCH, "odd"))
    except RewardError as error:
        assert "'odd'" in str(error)


@often
@given(st.binary(max_size=40) | plain.map(lambda v: json.dumps({"scores": v}).encode()))
def test_anything_a_service_may_answer(content):
    reward = RemoteReward.__new__(RemoteReward)
    reward.url, reward.kind, reward.max_batch = "http://reward.example", "pointwise", 32
    reward._encode = lambda batch: {}

    async def ask(method, path, **body):
        return content

    reward._transport = SimpleNamespace(ask=ask)
    try:
        checked(reward(BATCH))
    except RewardError as error:
        assert "http://reward.example/score" in str(error) and str(error).isprintable()


@often
@given(st.sampled_from(["step", "prompt", "rollouts", "best", "worst", "images", "metadata"]), plain)
def test_any_value_in_a_record(shared, tmp_path, key, value):
    _, _, run = shared
    path = Path(tmp_path / "rollouts.jsonl")
    record = json.loads((run / "rollouts/step-000000/rollouts.jsonl").read_text()) | {key: value}
    path.write_text(json.dumps(record) + "\n")
    try:
        (read,) = read_step(path)
    except RolloutError as error:
        assert "rollouts.jsonl:1" in str(error)
    else:
        names = [read["best"]["image"], read["worst"]["image"], *(read.get("images") or ())]
        assert all(Path(name).name == name for name in names)
