"""Rollouts become TRL's rows: nothing changes places; what was dropped keeps its place and does not count."""

import subprocess
import sys

import numpy as np
import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutError, RolloutGroup
from blip3o_grpo.training.draws import Draws
from blip3o_grpo.training.rows import columns, group_rows, masked_row, reward_column

REWARDS = (RewardSection(name="ocr"), RewardSection(name="guard", weight=0))
TOKENS = 3


def group(name, first, scores):
    """A group whose tokens count up from `first`; `scores`: per member those of `ocr` and `guard`."""
    rollouts = tuple(
        Rollout(
            Completion(
                np.arange(TOKENS, dtype=np.int32) + first + 10 * member,
                -np.arange(1, TOKENS + 1, dtype=np.float32) / 4 - member,
                0,
                member,
            ),
            np.zeros((2, 2, 3), np.uint8),
            {"ocr": ocr, "guard": guard},
        )
        for member, (ocr, guard) in enumerate(scores)
    )
    return RolloutGroup(Prompt(name, f"a sign {name}"), [7, first], rollouts)


def test_a_row_holds_a_members_own_tokens_log_probs_and_scores():
    assert group_rows(group("a", 100, [(0.25, None), (1.0, None)]), REWARDS) == [
        {
            "prompt_ids": [7, 100],
            "completion_ids": [100, 101, 102],
            "logprobs": [-0.25, -0.5, -0.75],
            "env_mask": [1, 1, 1],
            "reward/ocr": 0.25,
            "reward/guard": None,
        },
        {
            "prompt_ids": [7, 100],
            "completion_ids": [110, 111, 112],
            "logprobs": [-1.25, -1.5, -1.75],
            "env_mask": [1, 1, 1],
            "reward/ocr": 1.0,
            "reward/guard": None,
        },
    ]


def test_a_masked_row_counts_for_nothing():
    assert masked_row([7, 8], 100, TOKENS, REWARDS) == {
        "prompt_ids": [7, 8],
        "completion_ids": [100, 100, 100],
        "logprobs": [0.0, 0.0, 0.0],
        "env_mask": [0, 0, 0],
        "reward/ocr": None,
        "reward/guard": None,
    }


def test_columns_are_in_the_order_of_the_prompts_and_dropped_groups_keep_their_place():
    first, last = group("a", 100, [(0.0, 0.5), (1.0, 0.5)]), group("c", 300, [(0.5, 0.25), (0.75, 0.25)])
    asked = []

    def masked(prompt):
        asked.append(prompt.id)
        return [masked_row([9], 500, TOKENS, REWARDS)] * 2

    prompts = [last.prompt, Prompt("b", "a sign b"), first.prompt]
    batch = RolloutBatch((first, last), {}, skipped_groups=1)
    found = columns(Draws(prompts, batch, []), REWARDS, masked)
    assert asked == ["b"]
    assert found == {
        "prompt_ids": [[7, 300], [7, 300], [9], [9], [7, 100], [7, 100]],
        "completion_ids": [[300, 301, 302], [310, 311, 312], [500] * 3, [500] * 3, [100, 101, 102], [110, 111, 112]],
        "logprobs": [[-0.25, -0.5, -0.75], [-1.25, -1.5, -1.75], [0.0] * 3, [0.0] * 3]
        + [[-0.25, -0.5, -0.75], [-1.25, -1.5, -1.75]],
        "env_mask": [[1] * 3, [1] * 3, [0] * 3, [0] * 3, [1] * 3, [1] * 3],
        "reward/ocr": [0.5, 0.75, None, None, 0.0, 1.0],
        "reward/guard": [0.25, 0.25, None, None, 0.5, 0.5],
    }


def test_a_batch_may_be_one_row():
    one = group("a", 100, [(0.5, None)])
    batch = RolloutBatch((one,), {}, skipped_groups=0)
    found = columns(Draws([one.prompt], batch, []), REWARDS, lambda prompt: [])
    assert found == {key: [value] for key, value in group_rows(one, REWARDS)[0].items()}


@pytest.mark.parametrize(
    ("ocr", "guard", "named"), [((0.2, None), (0.8, 0.8), "ocr"), ((0.2, 0.9), (None, 0), "guard")]
)
def test_a_reward_that_scores_only_some_members_is_refused_in_one_line(ocr, guard, named):
    """TRL's sum takes the missing score for 0: with a = .2, .2, .2, .9 and b = .8, .8, .8, None the best would lose."""
    with pytest.raises(RolloutError) as refused:
        group_rows(group("a", 100, zip(ocr, guard, strict=True)), REWARDS)
    assert f"reward '{named}' scores some images of the prompt 'a sign a' and gives None for others" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)


def test_a_reward_column_hands_on_what_the_rows_hold():
    column = reward_column("ocr")
    assert column.__name__ == "ocr"  # TRL's name of the metric
    fields = {"reward/ocr": [0.5, None], "reward/guard": [1.0, 1.0], "prompts": ["0", "0"]}
    assert column(**fields) == [0.5, None]


def test_rows_need_no_torch():
    code = "import sys, blip3o_grpo.training.rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
