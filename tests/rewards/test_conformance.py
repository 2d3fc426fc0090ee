"""`score` and `check_reward` refuse every way in which a reward can break the training loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, example_batch, score


class Brightness:
    """A correct reward, and the base of the broken ones."""

    def __call__(self, batch):
        return [float(image.mean()) / 255 for image in batch.images]


class TooFew(Brightness):
    def __call__(self, batch):
        return super().__call__(batch)[:-1]


class NotANumber(Brightness):
    def __call__(self, batch):
        return [float("nan") for _ in batch.images]


class Infinite(Brightness):
    def __call__(self, batch):
        return [float("inf") for _ in batch.images]


class Words(Brightness):
    def __call__(self, batch):
        return ["good" for _ in batch.images]


class Booleans(Brightness):
    def __call__(self, batch):
        return [True for _ in batch.images]


class AnArray(Brightness):
    def __call__(self, batch):
        return np.zeros(len(batch))


class Random(Brightness):
    def __init__(self):
        self.counter = itertools.count()

    def __call__(self, batch):
        return [float(next(self.counter)) for _ in batch.images]


class RelativeToBatch(Brightness):
    def __call__(self, batch):
        scores = super().__call__(batch)
        return [value - sum(scores) / len(scores) for value in scores]


class Positional(Brightness):
    def __call__(self, batch):
        return [0.0] if len(batch) == 1 else [float(image.mean()) * (i == 0) for i, image in enumerate(batch.images)]


class TwoFaced(Brightness):
    def explained_scores(self, batch):
        return [(0.0, {"reason": "too dark"})] * len(batch)


class FailsOnEmpty(Brightness):
    def __call__(self, batch):
        return super().__call__(batch) or [0.0]


class Mutates(Brightness):
    def __call__(self, batch):
        scores = super().__call__(batch)
        batch.images[0][:] = 0
        return scores


class Tags(Brightness):
    def __call__(self, batch):
        batch.metadata[0]["seen"] = True
        return super().__call__(batch)


class Inconsistent(Brightness):
    @staticmethod
    def applicable(prompt, metadata):
        return False


class Forgetful(Brightness):
    scale = 1.0

    def fit_reference(self, batch):
        self.scale = 2.0

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.scale = 1.0

    def __call__(self, batch):
        return [self.scale * value for value in super().__call__(batch)]


class Hoarder(Forgetful):
    def state_dict(self):
        return {"band": range(3)}


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (TooFew, "'TooFew' returned 3 scores for 4 images"),
        (NotANumber, "returned nan for prompt 'a blue sign"),
        (Infinite, "returned inf for prompt"),
        (Words, "returned 'good' \\(str\\)"),
        (Booleans, "returned True \\(bool\\)"),
        (AnArray, "returned ndarray instead of a list"),
        (Random, "not deterministic: image 0 scored 0.0 and then 4.0"),
        (RelativeToBatch, "depends on which images share a batch"),
        (Positional, "depends on"),
        (FailsOnEmpty, "empty batch|1 scores for 0 images"),
        (Mutates, "changes the images"),
        (Tags, "changes the images, prompts or metadata"),
        (Inconsistent, "not applicable, yet scores it"),
        (Forgetful, "after its state was restored"),
        (TwoFaced, "explains other scores than it gives"),
        (Hoarder, "state of reward 'Hoarder' cannot be stored"),
    ],
)
def test_broken_rewards_are_caught(reward, message):
    with pytest.raises(RewardError, match=message):
        check_reward(reward)


def test_a_correct_reward_passes_as_class_and_as_instance():
    checked = check_reward(Brightness)
    assert checked.scores == check_reward(Brightness()).scores and len(checked.scores) == len(example_batch())


def test_options_must_travel_to_workers():
    with pytest.raises(RewardError, match="cannot be pickled"):
        check_reward(Brightness, options={"weigh": lambda image: 1.0})


def test_score_accepts_numpy_floats_and_none_and_returns_plain_floats():
    batch = example_batch(3)
    assert score(lambda _: [np.float32(0.5), None, 1], batch) == [0.5, None, 1.0]
    assert all(type(value) is float for value in score(lambda _: [np.float64(0.5)] * 3, batch))


def test_score_lets_the_rewards_own_error_through():
    """A failure is never a number; the caller decides whether to retry, and needs the real traceback."""

    def fails(batch):
        raise RuntimeError("model died")

    with pytest.raises(RuntimeError, match="model died"):
        score(fails, example_batch())


def test_batches_of_unequal_lists_are_refused():
    with pytest.raises(RewardError, match="got 1, 2 and 0"):
        RewardBatch([np.zeros((4, 4, 3), np.uint8)], ["a", "b"], [])


class Rank(Brightness):
    kind = "group"

    def __call__(self, batch):
        assert len(set(batch.prompts)) == 1, "only siblings"
        means = super().__call__(batch)
        return [sum(mean > other for other in means) / len(means) for mean in means]


class FirstWins(Rank):
    def __call__(self, batch):
        return [float(index == 0) for index in range(len(batch))]


class Abstains(Brightness):
    """Leaves out what is bright."""

    def __call__(self, batch):
        return [value if value < 0.9 else None for value in super().__call__(batch)]


class AbstainsInGroup(Abstains):
    kind = "group"


class Silent(Brightness):
    def __call__(self, batch):
        return [None] * len(batch)


def test_a_group_reward_is_tested_with_siblings_only():
    checked = check_reward(Rank)
    assert checked.kind == "group" and "scores follow the siblings when their order changes" in checked.promises
    with pytest.raises(RewardError, match="depends on the order of the siblings"):
        check_reward(FirstWins)
    check_reward(type("Centred", (RelativeToBatch,), {"kind": "group"}))  # refused above as a pointwise one


@pytest.mark.parametrize("reward", [Abstains, AbstainsInGroup])
def test_abstaining_on_some_images_of_a_prompt_is_refused(reward):
    """The advantages of the others would be measured against a group that is not whole."""
    with pytest.raises(RewardError, match="scores some images of the prompt 'a blue sign.* and gives None for others"):
        check_reward(reward)


def test_a_check_that_scored_nothing_has_shown_nothing():
    with pytest.raises(RewardError, match=r"scored None for all 4 images, so nothing was tested .*allow_none=True"):
        check_reward(Silent)
    assert check_reward(Silent, allow_none=True).scores == [None] * 4
    with pytest.raises(RewardError, match="it needs a prompt that its `applicable` accepts"):
        check_reward(type("Never", (Silent, Inconsistent), {}))


def test_what_was_tested_is_printed():
    checked = check_reward(Brightness)
    assert repr(checked) == str(checked)  # a notebook shows the former
    lines = str(checked).splitlines()
    assert lines[0] == "reward Brightness (pointwise)" and lines[-1].startswith("scores: 0.50")
    assert len(lines) > 7 and all(line.startswith("  ok  ") for line in lines[1:-1])


def test_the_authors_own_images_and_prompts_are_scored(tmp_path):
    images = [Image.new("L", (8, 8), 51), np.full((4, 4, 3), 204, np.uint8)]
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a dog", "id": "7", "bright": true}\n\n{"prompt": "a cat"}\n{"prompt": "a cow"}\n')
    seen = []

    def reward(images, prompts, metadata):
        seen.append((prompts, metadata))
        return [float(image.mean()) / 255 for image in images]

    assert check_reward(reward, images=images, prompts=file).scores == pytest.approx([0.2, 0.8, 0.2])
    assert seen[0] == (["a dog", "a cat", "a cow"], [{"bright": True}, {}, {}])
    assert len(check_reward(reward, images=images, prompts=["one"]).scores) == 2
    assert len(check_reward(reward, images=images).scores) == 2
    assert len(check_reward(reward, prompts=["a", {"prompt": "b", "tag": "c"}]).scores) == 4
    (tmp_path / "my_rewards.py").write_text("def half(images, prompts, metadata):\n    return [0.5] * len(images)\n")
    assert check_reward("my_rewards:half", folder=tmp_path, images=images).scores == [0.5] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": []}, "at least one image"),
        ({"prompts": []}, "at least one prompt"),
        ({"images": ["cat.png"]}, "must be a PIL image or a numpy array"),
        ({"prompts": [3]}, r"prompts\[0\]: expected a text"),
        ({"prompts": "a dog"}, "give a list of texts, or a prompt file"),
        ({"prompts": "absent.txt"}, "absent.txt: cannot be read"),
        ({"prompts": ["a"], "batch": example_batch()}, "not both"),
    ],
)
def test_inputs_that_are_none_are_named(given, message):
    with pytest.raises(RewardError, match=message):
        check_reward(Brightness, **given)
