from blip3o_grpo_colorfulness import Colorfulness

from blip3o_grpo.rewards import check_reward


def test_it_keeps_the_promises_of_a_reward():
    noise, white, grey_gradient, _ = check_reward(Colorfulness)
    assert noise is not None and noise > 0.5
    assert white == grey_gradient == 0
