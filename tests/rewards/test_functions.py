"""Plain functions are rewards: their signature and options are checked, and they are what a class would be."""

import functools

import numpy as np
import pytest

from blip3o_grpo.rewards import RewardError, adapt, check_reward, example_batch, group_reward
from blip3o_grpo.rewards.spec import describe


def brightness(images, prompts, metadata, scale=1.0, *, offset=0.0):
    return [scale * float(image.mean()) / 255 + offset for image in images]


def anything(images, prompts, metadata, strength=1.0, **options):
    return [strength + len(options)] * len(images)


def keywords(*, images, prompts, metadata):
    return [np.float32(0.5)] * len(images)


def only_images(images, **_):
    return [0.5 for _ in images]


@functools.wraps(brightness)
def decorated(*args, **kwargs):
    return brightness(*args, **kwargs)


@functools.lru_cache
def cached(images, prompts, metadata):
    return [0.0]


def needs_scale(images, prompts, metadata, scale):
    return [scale for _ in images]


@pytest.mark.parametrize("function", [brightness, anything, keywords, only_images, decorated])
def test_functions_of_many_forms_pass_the_check(function):
    assert len(check_reward(function).scores) == 4


def test_options_go_into_every_call():
    batch = example_batch(2)
    plain, scaled = (
        describe(brightness, "b").build(options).score(batch) for options in ({}, {"scale": 2, "offset": 1})
    )
    assert scaled == pytest.approx([2 * value + 1 for value in plain])
    partial = functools.partial(brightness, scale=2)
    assert check_reward(partial).scores[0] == pytest.approx(2 * check_reward(brightness).scores[0])


def positional(images, prompts, metadata, /):
    return []


def batch_only(batch):
    return []


def misnamed(imgs, prompts, metadata):
    return []


async def awaited(images, prompts, metadata):
    return []


def no_metadata(images, prompts):
    return []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (positional, "takes no 'images'"),
        (batch_only, "takes no 'images'"),
        (misnamed, "takes no 'images'"),
        (lambda *args, **kwargs: [], r"takes no 'images' \(a decorator around it needs functools.wraps\)"),
        (no_metadata, "takes no 'metadata'"),
        (awaited, "is an async function"),
        (lambda x, /, images, prompts, metadata: [], "takes 'x' by position only"),
    ],
)
def test_a_wrong_signature_is_one_line_that_says_what_is_expected(function, message):
    with pytest.raises(RewardError, match=message) as caught:
        describe(function, "f")
    assert "expected def NAME(images, prompts, metadata, **options) -> list[float | None]" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (brightness, {"scael": 1}, "no option 'scael'; did you mean 'scale'"),
        (brightness, {"zzz": 1}, "it takes: scale, offset"),
        (anything, {"strenght": 1}, "did you mean 'strength'"),
        (needs_scale, {}, "its option 'scale' is required"),
        (brightness, {"images": 1}, "'images' is given with every call"),
        (keywords, {"zzz": 1}, "it takes: no options"),
    ],
)
def test_options_are_checked_by_name(function, options, message):
    with pytest.raises(RewardError, match=message):
        describe(function, "f").check_options(options)


def test_other_options_reach_a_function_that_takes_any():
    assert check_reward(anything, options={"other": 1}).scores == [2.0] * 4


def test_what_a_function_returns_must_be_a_list():
    for returned, message in ((np.zeros(4), r"returned ndarray .*tolist"), ((0.5,) * 4, "returned tuple")):
        with pytest.raises(RewardError, match=message):
            check_reward(lambda images, prompts, metadata, value=returned: value)


def test_a_decorated_function_is_a_group_reward_as_function_and_as_instance():
    @group_reward
    def rank(images, prompts, metadata):
        means = [float(image.mean()) for image in images]
        return [sum(mean > other for other in means) / len(means) for mean in means]

    spec = describe(rank, "rank")
    assert spec.kind == spec.build().kind == adapt(spec.build().instance).kind == "group"
    assert check_reward(rank).kind == "group"
