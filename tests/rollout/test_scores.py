"""New scores on scored groups."""

import numpy as np

from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutGroup
from blip3o_grpo.rollout.scores import Columns, with_scores


def test_new_scores_replace_their_own_only_and_a_group_without_any_is_dropped():
    completion = Completion(np.zeros(4, np.int32), np.zeros(4, np.float32), 0, 0)
    rollout = Rollout(completion, np.zeros((2, 2, 3), np.uint8), {"ocr": 0.5, "guard": None}, {"ocr": {"read": "TAXI"}})
    groups = [RolloutGroup(Prompt(name, name), [1], (rollout, rollout)) for name in ("a", "b")]
    scored = with_scores(groups, [Columns({"guard": [0.25, 1.0]}, {}), None])
    assert [group.prompt.id for group in scored] == ["a"]
    assert [member.rewards for member in scored[0].rollouts] == [
        {"ocr": 0.5, "guard": 0.25},
        {"ocr": 0.5, "guard": 1.0},
    ]
    assert scored[0].rollouts[0].explanations == {"ocr": {"read": "TAXI"}}
