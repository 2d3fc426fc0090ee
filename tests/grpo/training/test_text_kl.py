"""`trainer.text_kl`: the policy's words on plain texts stay those of the start, exactly repeatable."""

import pytest
import torch

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.planning.footprint import num_references
from blip3o_grpo.policies import PromptEncoder, PromptError
from blip3o_grpo.rollout.texts import PLAIN_ENGLISH, load_texts
from blip3o_grpo.training.text_kl import TextKL
from blip3o_grpo.validate import check_texts

KL = {"weight": 1.0, "texts_per_step": 4}
FAST = {"max_steps": 3, "learning_rate": 5e-4}


@pytest.fixture(scope="module")
def held(make_config, run_toy):
    return run_toy(make_config(trainer={**FAST, "text_kl": KL}))


def test_the_distance_is_logged_from_nothing_on_and_only_where_it_is_asked_for(held, make_config, run_toy):
    distances = [line["kl/text"] for line in held[2]]
    assert distances[0] == pytest.approx(0, abs=1e-7) and distances[1] > 1e-5
    assert "kl/text" not in run_toy(make_config(trainer={**FAST, "max_steps": 1}))[2][0]


@pytest.mark.slow
def test_the_term_holds_the_text_side(make_config, run_toy, tmp_path):
    """Against the same run with hardly any weight, which measures what happens without it; the same texts each step."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(text.text for text in load_texts(None)[:8]))
    ends = []
    for weight in (1.0, 1e-9):
        section = {"weight": weight, "texts": str(file), "texts_per_step": 8}
        metrics = run_toy(make_config(trainer={**FAST, "max_steps": 16, "text_kl": section}))[2]
        ends.append(sum(line["kl/text"] for line in metrics[-4:]) / 4)
    assert ends[0] < 0.7 * ends[1], ends


@pytest.mark.parametrize("change", [{"micro_batch_size": 2}, {"beta": 0.0}, {"sync_ref_model": True}])
def test_micro_batches_and_the_reference_of_the_other_term_change_nothing(held, make_config, run_toy, change):
    """The first two steps: `beta` and a moving reference change later ones, as they should."""
    metrics = run_toy(make_config(trainer={**FAST, "max_steps": 2, "text_kl": KL, **change}))[2]
    for line, expected in zip(metrics, held[2], strict=False):
        assert line["kl/text"] == pytest.approx(expected["kl/text"], rel=2e-2, abs=1e-6)


def test_a_resumed_run_replays_the_same_texts(held, make_config, run_toy):
    config = make_config(trainer={**FAST, "text_kl": KL})
    with pytest.raises(KeyboardInterrupt):
        run_toy(config, stop_at=3)
    for line, expected in zip(run_toy(config)[2], held[2], strict=True):
        for name in ("kl/text", "loss", "grad_norm", "reward/mean"):
            assert line[name] == pytest.approx(expected[name], abs=1e-4), (line["step"], name)


def test_with_lora_the_start_is_the_model_without_adapters(make_config, run_toy):
    section = {**FAST, "max_steps": 2, "learning_rate": 1e-2, "lora": {"rank": 4}, "beta": 0.0, "text_kl": KL}
    trainer, _, metrics = run_toy(make_config(trainer=section))
    assert metrics[0]["kl/text"] == pytest.approx(0, abs=1e-7) and metrics[-1]["kl/text"] > 1e-6
    learning = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert learning and all(torch.isfinite(parameter).all() for parameter in learning)


def test_ranks_share_a_steps_texts_and_their_mean_is_that_of_one(make_config):
    """Texts of different lengths, and a policy whose words hang on the token before."""
    texts = [[1 + n % 3, 2, 3, *range(1, n + 1)] for n in range(8)]

    def forward(scale):
        table = scale * torch.arange(50.0).reshape(10, 5)
        return lambda ids, mask: table[ids[:, :-1][mask[:, 1:].bool()]].sin().log_softmax(1)

    def of(rank, trainers):
        config = make_config(cluster={"trainers": trainers}, trainer={"text_kl": KL})
        return TextKL(config, texts, forward(1.0), rank, torch.device("cpu"))

    for step in (1, 2, 4):
        alone = of(0, 1).measure(forward(1.3), step)
        shares = [of(rank, 2).measure(forward(1.3), step) for rank in range(2)]
        torch.testing.assert_close(sum(shares) / 2, alone)
    assert alone > 0 and of(0, 1).measure(forward(1.0), 1) == 0


@pytest.mark.parametrize(
    ("section", "copies"),
    [
        ({"beta": 0.1}, 1),
        ({"beta": 0.1, "text_kl": KL}, 1),
        ({"beta": 0.0, "text_kl": KL}, 1),
        ({"beta": 0.1, "sync_ref_model": True, "text_kl": KL}, 2),
        ({"beta": 0.1, "lora": {"rank": 4}, "text_kl": KL}, 0),
    ],
)
def test_plan_knows_how_many_copies_of_the_start_a_rank_holds(make_config, section, copies):
    assert num_references(make_config(trainer=section)) == copies


def test_the_texts_that_come_along_are_a_few_hundred_and_all_different():
    assert 200 <= len(load_texts(None)) == len(PLAIN_ENGLISH.read_text().splitlines())


REFUSED = {
    "head alone": ({"learn": ["head"], "text_kl": {"weight": 1}}, "learn does not name the tokens"),
    "negative": ({"text_kl": {"weight": -0.1}}, "trainer.text_kl.weight"),
    "nothing": ({"text_kl": {"weight": 0}}, "trainer.text_kl.weight"),
    "ranks": ({"text_kl": {"weight": 1, "texts_per_step": 5}, "trainers": 2}, "does not divide over .* give 6"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_term_that_cannot_act_is_refused(make_config, case):
    values, message = REFUSED[case]
    sections = {"trainer": {"text_kl": values["text_kl"]}, "cluster": {"trainers": values.get("trainers", 1)}}
    head = {"noises_per_completion": 2} if "learn" in values else {}
    with pytest.raises(ValueError, match=message):
        make_config(**sections, rollout=head, learn=values.get("learn", ["tokens"]))


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (None, PromptError, r"trainer\.text_kl\.texts: .*nothing\.txt: no such prompt file"),
        ("One.\nTwo <I3> words.", PromptError, r"texts\.txt: text 'Two <I3> words\.' holds <I3>"),
        ("A first text.\nA second text.", ConfigError, "holds 2 texts; give 2 or less"),
    ],
)
def test_texts_that_cannot_be_replayed_are_refused_before_anything_loads(
    make_config, policy_path, tmp_path, lines, error, message
):
    file = tmp_path / ("nothing.txt" if lines is None else "texts.txt")
    if lines is not None:
        file.write_text(lines)
    config = make_config(trainer={"text_kl": {**KL, "texts": str(file)}})
    with pytest.raises(error, match=message):
        check_texts(config, PromptEncoder.from_pretrained(policy_path, plain=True))
