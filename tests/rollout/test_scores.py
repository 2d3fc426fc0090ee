"""Scores of groups: gathered, whole or not at all, and new ones on scored groups."""

import numpy as np
import pytest

from blip3o_grpo.configs import RewardSection
from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutError, RolloutGroup
from blip3o_grpo.rollout.messages import DecodedChunk, GroupRequest, ScoredChunk, Work
from blip3o_grpo.rollout.scores import Columns, ScoreGatherer, with_scores


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


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_reward_that_scores_only_some_members_of_a_group_has_failed_on_it(tmp_path, monkeypatch, on_error):
    """None for a whole group is an answer; None for one of its members would count as a 0 beside other rewards."""
    requests = tuple(GroupRequest(Prompt(name, f"a sign {name}"), [1], 2, 0, (0, 1)) for name in ("a", "b", "c"))
    decoded = DecodedChunk(requests, (np.zeros((2, 4, 4, 3), np.uint8),) * 3, Work("decoder-0", 1.0, 0))
    scored = ScoredChunk(([0.5, 0.25], [None, None], [0.5, None]), Work("ocr-0", 2.0, None))
    monkeypatch.setattr("blip3o_grpo.rollout.scores.result", lambda board, call, requests: scored)
    seconds = {}
    reward = RewardSection(name="ocr", on_error=on_error)
    gatherer = ScoreGatherer((reward,), tmp_path / "failures", None, 3, None, seconds)
    if on_error == "skip":
        columns = gatherer.gather({"ocr": None}, decoded)
        assert [column and column.scores for column in columns] == [{"ocr": [0.5, 0.25]}, {"ocr": [None, None]}, None]
        assert seconds == {"score": 2.0, "score/ocr": 2.0}
        return
    said = r"reward 'ocr' failed on prompt 'a sign c': it scores some images of the prompt 'a sign c' and gives None"
    with pytest.raises(RolloutError, match=said) as stopped:
        gatherer.gather({"ocr": None}, decoded)
    assert "\n" not in str(stopped.value)
    assert len(list((tmp_path / "failures").glob("step-3-ocr-c.*"))) == 2
