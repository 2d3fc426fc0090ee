"""A recipe for BLIP3-o that speaks of tokens is refused in one line, with the key."""

import pytest
from pydantic import ValidationError

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.blip3o import IDLE


def make(**sections):
    values = {
        "run_dir": "unused",
        "learn": ["head"],
        "policy": {"type": "blip3o", "path": "unused"},
        "prompts": {"train": "unused", "heldout": "unused"},
        "rewards": [{"name": "ocr"}],
        "rollout": {"noise": "independent"},
        "head": {"credit": "shared"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return RunConfig.model_validate(values)


def test_a_recipe_without_tokens_is_fine():
    assert make().policy.type == "blip3o"
    assert make(head={"method": {"type": "flow_grpo"}}).rollout.num_diffusion_steps > 1


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"learn": ["tokens"]}, "learn=['tokens']: policy.type=blip3o samples no tokens; give learn: [head]"),
        ({"learn": ["tokens", "head"]}, "give learn: [head]"),
        ({"evaluation": {"top_p": 0.9}}, "evaluation.top_p=0.9: policy.type=blip3o samples no tokens; leave it out"),
        ({"evaluation": {"top_k": 5}}, "evaluation.top_k=5"),
        ({"rollout": {"temperature": 0.7}}, "rollout.temperature=0.7"),
        ({"rollout": {"enforce_eager": False}}, "rollout.enforce_eager=False"),
        ({"rollout": {"decoder": {"compile": True}}}, "rollout.decoder={'compile': True}"),
        ({"cluster": {"samplers": 2}}, "cluster.samplers=2"),
        ({"cluster": {"gpus_per_sampler": 0.5}}, "cluster.gpus_per_sampler=0.5"),
        ({"trainer": {"beta": 0.5}}, "trainer.beta=0.5"),
        (
            {"trainer": {"learning_rate": 0.1}},
            "trainer.learning_rate=0.1: policy.type=blip3o samples no tokens; give head",
        ),
        ({"trainer": {"lora": {"rank": 4}}}, "give head.lora"),
        ({"rollout": {"noise": "shared"}}, "rollout.noise=shared"),
        ({"rollout": {"noises_per_completion": 2}}, "give rollout.group_size"),
        ({"head": {"credit": "factorised"}}, "head.credit=factorised"),
        ({"rollout": {"num_diffusion_steps": 1}, "head": {"method": {"type": "flow_grpo"}}}, "num_diffusion_steps=1"),
    ],
)
def test_options_of_tokens_are_refused(sections, told):
    with pytest.raises(ValidationError) as error:
        make(**sections)
    assert told in str(error.value)


def test_the_refused_keys_exist():
    run = make()
    for name, keys in IDLE.items():
        assert set(keys) <= type(getattr(run, name)).model_fields.keys(), name
