"""Stage times of a recipe from a calibration file: what `scripts/bench_gpu.py --calibration FILE` measured on a card.

The file holds seconds of one image by stage; a recipe's own chunk, diffusion steps and passes of training are put
together here. The reading of text on CPUs is not in it and stays computed (`costs.py`); neither is the update of the
diffusion head, so recipes in which it learns are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from blip3o_grpo.configs import ConfigError, RunConfig
from blip3o_grpo.configs.regular_files import read_text
from blip3o_grpo.configs.typed_json import parse_typed
from blip3o_grpo.planning.cards import card_of_device
from blip3o_grpo.planning.costs import computed_times, training_passes
from blip3o_grpo.planning.times import StageTimes, policy_shape

MEASURED_PASSES = 4
"""Of the benchmark's training step: a forward pass, the same again for checkpointing, a backward pass (twice one)."""
Count = Annotated[int, Field(ge=1, lt=2**53)]


class DecodeSeconds(TypedDict):
    """Of one image."""

    step: NonNegativeFloat
    once: NonNegativeFloat


class Seconds(TypedDict):
    """Of one image on one GPU; `sample_call`: of an engine call, whatever it draws."""

    sample_call: NonNegativeFloat
    sample: NonNegativeFloat
    hidden_states: NonNegativeFloat
    decode: dict[Literal["eager", "compiled"], DecodeSeconds]
    learn: NonNegativeFloat


class Calibration(TypedDict):
    """The file."""

    format: Literal[1]
    device: str
    dry: bool
    day: str
    command: str
    versions: dict[str, str]
    policy: dict[Literal["layers", "width", "image_tokens", "image_vocabulary"], Count]
    dtype: Literal["bfloat16", "float32"]
    seconds: Seconds


CALIBRATION = TypeAdapter(Calibration)


def read_calibration(file: Path) -> Calibration:
    """A calibration file.

    Raises:
        ConfigError: cannot be read, or is none.
    """
    try:
        return parse_typed(read_text(file), CALIBRATION)
    except OSError as error:
        raise ConfigError(f"--calibration {file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # no UTF-8 among it
        raise ConfigError(f"--calibration {file}: no calibration of scripts/bench_gpu.py: {error}") from None


def calibrated_card(file: Path, name: str | None = None) -> str:
    """Name of the card that a file is of.

    Args:
        file: of the calibration.
        name: the card that is asked for; None: the file's.

    Raises:
        ConfigError: it is of another card, of none, or of a dry run, naming both; or a stage takes no time.
    """
    found = read_calibration(file)
    measured = card_of_device(found["device"])
    if found["dry"] or measured is None:
        how = "in a dry run" if found["dry"] else "on a card that is not known here"
        raise ConfigError(
            f"--calibration {file}: measured {how} on {found['device']}, which says nothing of {name or 'any card'}"
        )
    if name not in (None, measured):
        raise ConfigError(f"--calibration {file}: measured on {measured} ({found['device']}), and --card is {name}")
    if nothing := takes_no_time(found["seconds"]):
        raise ConfigError(
            f"--calibration {file}: seconds.{nothing} is 0, which no stage takes: it was lost in the noise of the "
            "measurement; measure again with more --repeats"
        )
    return measured


def takes_no_time(seconds: Seconds) -> str | None:
    """Key of what a run cannot do in 0 seconds but does here; None: there is none.

    The benchmark puts lines through two batches or numbers of steps, and cuts slopes at 0. An image may well add
    nothing to an engine call, or a call nothing to its images, but not both.
    """
    decode = {f"decode.{way}.step": one["step"] for way, one in seconds["decode"].items()}
    sample = {"sample": seconds["sample_call"] + seconds["sample"]}
    rest = {key: seconds[key] for key in ("hidden_states", "learn")}
    return next((key for key, value in (sample | rest | decode).items() if not value), None)


def always_guided(config: RunConfig) -> RunConfig:
    """The recipe as the benchmark decodes: with guidance in every step."""
    guidance = {"guidance_scale": 2.0, "guidance_interval": (0.0, 1.0)}
    return config.model_copy(update={"rollout": config.rollout.model_copy(update=guidance)})


def calibrated_times(config: RunConfig, policy_path: Path, file: Path) -> StageTimes:
    """Seconds per image of every stage, as measured; of scores, as computed.

    Raises:
        ConfigError: it is of another policy or dtype than the run, or lacks what the recipe's decoders do.
    """
    found, shape = read_calibration(file), policy_shape(policy_path)
    for key, theirs, ours in (("policy", found["policy"], shape), ("dtype", found["dtype"], config.policy.dtype)):
        if theirs != ours:
            raise ConfigError(f"--calibration {file}: its {key} is {theirs}, this run's is {ours}")
    seconds, rollout = found["seconds"], config.rollout
    way = "compiled" if rollout.decoder.compile else "eager"
    if way not in seconds["decode"]:
        raise ConfigError(
            f"--calibration {file}: decoding was not measured {way}, and rollout.decoder.compile is "
            f"{str(rollout.decoder.compile).lower()}"
        )
    card = calibrated_card(file)
    if "head" in config.learn:
        raise ConfigError(
            f"--calibration {file}: the update of the diffusion head was not measured (learn: "
            f"{', '.join(config.learn)}); give --card, which computes it"
        )
    computed, guided = (computed_times(one, policy_path, card) for one in (config, always_guided(config)))
    unguided = computed.decode_per_step / guided.decode_per_step  # of what was measured, with guidance in every step
    drawn = min(rollout.prompts_per_chunk, rollout.prompts_per_step) * rollout.group_size
    packages = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return StageTimes(
        policy=shape,
        device=computed.device,
        dtype=config.policy.dtype,
        sample=seconds["sample_call"] / drawn + seconds["sample"],
        sample_call=seconds["sample_call"],
        decode_once=seconds["hidden_states"] + seconds["decode"][way]["once"],
        decode_per_step=seconds["decode"][way]["step"] * unguided,
        score=computed.score,
        train=seconds["learn"] / MEASURED_PASSES * training_passes(config),
        source=f"measured on {found['device']}, {found['day']}, by `{found['command']}` ({packages}), sampling with "
        "transformers in the place of vLLM; the reading of text is computed",
        computed=("score",),
    )
