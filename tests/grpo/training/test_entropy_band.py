"""`trainer.entropy_band`: a bonus below it, a penalty above it, nothing inside."""

import pytest

from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.entropy_band import band_coefficient
from blip3o_grpo.training.trl_seams import SeamedGRPOTrainer


@pytest.mark.parametrize(
    ("entropy", "found"), [(None, 0.0), (0.5, 0.1), (1.0, 0.0), (1.5, 0.0), (2.0, 0.0), (2.5, -0.1)]
)
def test_the_coefficient(entropy, found):
    assert band_coefficient(0.1, (1.0, 2.0), entropy) == found


def run(make_config, run_toy, band, steps=8, **trainer):
    section = {"max_steps": steps, "learning_rate": 3e-3, "entropy_coef": 5.0, "entropy_band": band} | trainer
    return make_config(trainer=section)


def test_the_entropy_is_pushed_back_into_its_band(make_config, run_toy):
    """The random policy's is near log 64 = 4.16: a band below pushes it down, one above up, from the second step on."""
    ends = {}
    for band in ((0.0, 1.0), (4.2, 4.3)):
        seen, original = [], SeamedGRPOTrainer.set_entropy_coefficient

        def see(self, coefficient, seen=seen, original=original):
            seen.append(coefficient)
            original(self, coefficient)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SeamedGRPOTrainer, "set_entropy_coefficient", see)
            _, _, metrics = run_toy(run(make_config, run_toy, band))
        ends[band] = metrics[-1]["entropy"] - metrics[0]["entropy"]
        assert seen[0] == 0 and set(seen[1:]) == {-5.0 if band[1] == 1 else 5.0}
    assert ends[0.0, 1.0] < -0.2 and ends[0.0, 1.0] < ends[4.2, 4.3] - 0.2


def test_a_resumed_run_knows_the_entropy_of_the_step_before(make_config, run_toy):
    whole, broken = (run(make_config, run_toy, (0.0, 1.0), steps=4) for _ in range(2))
    _, _, expected = run_toy(whole)
    with pytest.raises(KeyboardInterrupt):
        run_toy(broken, stop_at=3)
    assert RunFolder(broken.run_dir).newest_step() == 2
    _, _, metrics = run_toy(broken)
    assert [line["entropy"] for line in metrics] == pytest.approx([line["entropy"] for line in expected], abs=1e-5)
