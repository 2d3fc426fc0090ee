"""`check_reward`: the conformance test that authors of rewards run on their own class.

from blip3o_grpo.rewards import check_reward
check_reward(MyReward, options={"strength": 2})
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from blip3o_grpo.rewards.types import Reward, RewardBatch, RewardError, explained_scores, score


def example_batch(num_images: int = 4, size: int = 64) -> RewardBatch:
    """Noise, flat and gradient images with prompts that quote text: a batch for rewards without special needs."""
    generator = np.random.default_rng(0)
    gradient = np.repeat(np.linspace(0, 255, size).astype(np.uint8)[None, :, None], size, axis=0).repeat(3, axis=2)
    kinds = (
        generator.integers(0, 256, (size, size, 3), dtype=np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        gradient,
    )
    images = [kinds[index % len(kinds)].copy() for index in range(num_images)]
    prompts = [f'a blue sign that says "SIGN {index}"' for index in range(num_images)]
    return RewardBatch(images, prompts, [{} for _ in range(num_images)])


def check_reward(
    reward: Reward | type,
    batch: RewardBatch | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> list[float | None]:
    """Check that a reward keeps the promises the training loop relies on.

    Checked: options survive pickling (they travel to worker processes); one finite float or None per image; the
    same scores again on a second call, one image at a time, and in reverse order (so scores do not depend on the
    batch an image happens to be in); an empty batch gives an empty list; images and metadata are not changed;
    `applicable`, if there is one, agrees with None; `explained_scores`, if there is one, gives the same scores;
    `state_dict`, if there is one, survives being stored.

    Args:
        reward: an instance, or a class to construct with `options`.
        batch: what to score, at least two images (default: `example_batch()`). If the reward has `fit_reference`,
            and the class was given, the reward is fitted on this batch first.
        options: keyword arguments for the constructor, if a class is given.
        tolerance: largest difference that counts as the same score.

    Returns:
        The scores of `batch`.

    Raises:
        RewardError: the first promise that is broken, in words.
    """
    batch = batch or example_batch()
    if len(batch) < 2:
        raise RewardError("check_reward needs a batch of at least two images")
    name = reward.__name__ if isinstance(reward, type) else type(reward).__name__
    if isinstance(reward, type):
        options = dict(options or {})
        _require_picklable(options, f"options of reward {name!r}")
        reward = reward(**options)
        fit = getattr(reward, "fit_reference", None)
        if fit is not None:
            fit(batch)

    batch = _copy(batch)
    scores = _score_untouched(reward, batch, name)
    _require_same(scores, score(reward, batch, name), tolerance, f"reward {name!r} is not deterministic")
    single = [score(reward, batch[index : index + 1], name)[0] for index in range(len(batch))]
    _require_same(scores, single, tolerance, f"reward {name!r} depends on which images share a batch")
    backwards = score(reward, batch[::-1], name)[::-1]
    _require_same(scores, backwards, tolerance, f"reward {name!r} depends on the order of the batch")
    if score(reward, batch[:0], name) != []:
        raise RewardError(f"reward {name!r} must return an empty list for an empty batch")
    _check_applicable(reward, batch, scores, name)
    explained = [value for value, _ in explained_scores(reward, batch, name)]
    _require_same(scores, explained, tolerance, f"reward {name!r} explains other scores than it gives")
    _check_state(reward, batch, scores, tolerance, name)
    return scores


def _copy(batch: RewardBatch) -> RewardBatch:
    return RewardBatch([image.copy() for image in batch.images], list(batch.prompts), copy.deepcopy(batch.metadata))


def _score_untouched(reward: Reward, batch: RewardBatch, name: str) -> list[float | None]:
    images_before = [image.copy() for image in batch.images]
    others_before = pickle.dumps((batch.prompts, batch.metadata))
    scores = score(reward, batch, name)
    unchanged = all(np.array_equal(old, new) for old, new in zip(images_before, batch.images, strict=True))
    if not unchanged or pickle.dumps((batch.prompts, batch.metadata)) != others_before:
        raise RewardError(f"reward {name!r} changes the images, prompts or metadata it is given")
    return scores


def _require_same(first: list, second: list, tolerance: float, complaint: str) -> None:
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        if (a is None) != (b is None) or (a is not None and abs(a - b) > tolerance):
            raise RewardError(f"{complaint}: image {index} scored {a} and then {b}")


def _require_picklable(value: Any, what: str) -> Any:
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:  # pickle raises many types; the author needs to know what failed to travel
        raise RewardError(f"{what} cannot be pickled to a worker process: {error}") from error


def require_storable(value: Any, what: str) -> Any:
    """`value` as it comes back from a run folder, where nothing but tensors and plain values is read.

    Raises:
        RewardError: it holds something else.
    """
    import torch  # here, so that a reward's author can run everything else without it

    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    try:
        return torch.load(buffer, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise RewardError(
            f"{what} cannot be stored: it must hold tensors, numbers, strings, lists and dicts only ({reason})"
        ) from error


def _check_applicable(reward: Reward, batch: RewardBatch, scores: list, name: str) -> None:
    applicable = getattr(type(reward), "applicable", None)
    if applicable is None:
        return
    for prompt, metadata, value in zip(batch.prompts, batch.metadata, scores, strict=True):
        if not applicable(prompt, metadata) and value is not None:
            raise RewardError(f"reward {name!r} says prompt {prompt!r} is not applicable, yet scores it {value}")


def _check_state(reward: Reward, batch: RewardBatch, scores: list, tolerance: float, name: str) -> None:
    save, load = getattr(reward, "state_dict", None), getattr(reward, "load_state_dict", None)
    if save is None:
        return
    if load is None:
        raise RewardError(f"reward {name!r} has state_dict but no load_state_dict")
    load(require_storable(save(), f"state of reward {name!r}"))
    restored = score(reward, batch, name)
    _require_same(scores, restored, tolerance, f"reward {name!r} scores differently after its state was restored")
