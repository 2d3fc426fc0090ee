"""Two steps of ours against plain transformers and torch, tied and untied, whole and sharded, with LoRA; slow.

The reference is `Qwen3ForCausalLM`, a log-softmax over the image rows and AdamW. Both learn from the same images: the
reference repeats the loss on the tokens that rank 0's recorded steps saw (`StepRecorder`).
"""

import json

import pytest
import ray
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from blip3o_grpo.planning.disk import checkpoint_bytes
from blip3o_grpo.policies import BLIP3oNext, load_config, random_policy
from blip3o_grpo.policies.blip3o_next.checkpoint import PREFIXES
from blip3o_grpo.policies.blip3o_next.tied import EMBEDDING, HEAD, TIE, is_tied
from blip3o_grpo.run.folder import RunFolder
from blip3o_grpo.training.checkpoint_weights import load_trained
from tests.grpo.training.test_ranks import assert_same_run, run_in_two_parts, run_ranks

LEARNING_RATE = 1e-3
OPTIONS = {
    "ddp": {"parallel": {"type": "ddp"}},
    "fsdp2": {"parallel": {"type": "fsdp2"}, "ema": {"decay": 0.5, "use": "last"}},
    "fsdp2 and averages": {"parallel": {"type": "fsdp2"}, "ema": {"decay": 0.5, "use": "averaged"}},
    "fsdp2 and lora": {"parallel": {"type": "fsdp2"}, "lora": {"rank": 4}},
    "ddp and lora": {"parallel": {"type": "ddp"}, "lora": {"rank": 4}},
    "deepspeed 1": {"parallel": {"type": "deepspeed", "zero_stage": 1}},
    "deepspeed 2": {"parallel": {"type": "deepspeed", "zero_stage": 2}},
    "deepspeed 3": {"parallel": {"type": "deepspeed", "zero_stage": 3}},
}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def start(request, tmp_path_factory):
    """A starting policy in one of the two layouts."""
    return random_policy(tmp_path_factory.mktemp("start") / "policy", num_image_tokens=64, tie=request.param)


def plain(folder):
    """The AR part as plain transformers has it."""
    values = json.loads((folder / "config.json").read_text())
    values.pop("model_type")
    model = Qwen3ForCausalLM(Qwen3Config(**values))
    tensors = load_file(folder / "model.safetensors")
    ours = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(PREFIXES.values()))}
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected and missing == ([HEAD] if model.config.tie_word_embeddings else [])
    return model


@pytest.mark.slow
def test_two_steps_are_adamws_on_the_plain_loss(start, make_config, run_toy, prompts):
    """One prompt's group a step, so the loss is -A log p of its tokens: repeated in plain torch, tensor by tensor."""
    config = make_config(
        policy={"path": str(start)},
        rollout={"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0},
        trainer={"max_steps": 2, "learning_rate": LEARNING_RATE, "beta": 0.0, "max_grad_norm": 1e9},
    )
    seen, (trainer, _, _) = recorded(run_toy, config)
    model = plain(start)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    space = trainer.action_space
    adam = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for ids, mask, advantages in seen:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=positions).logits[:, -space.num_tokens - 1 : -1]
        logprobs = F.log_softmax(logits[..., space.start : space.stop], -1)
        chosen = logprobs.gather(-1, ids[:, -space.num_tokens :, None] - space.start)[..., 0]
        loss = -(advantages[:, None] * chosen).mean()  # the ratio to itself is 1, and its gradient that of log p
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert len(seen) == 2 and is_tied(trainer.model) == model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        # Adam's first steps are nearly signs, so entries with gradients of 1e-8 differ by rounding: norms are compared.
        difference, update = trainer.model.state_dict()[name] - tensor, tensor - before[name]
        assert difference.norm() < 0.02 * update.norm(), (name, difference.norm(), update.norm())


def recorded(run_toy, config):
    """A run, with the ids, masks and advantages of its steps."""
    from blip3o_grpo.training.trainer import ImageGRPOTrainer

    seen, original = [], ImageGRPOTrainer._compute_loss

    def compute(self, model, inputs):
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        seen.append((ids.clone(), mask.clone(), inputs["advantages"].clone()))
        return original(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageGRPOTrainer, "_compute_loss", compute)
        return seen, run_toy(config)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_ranks_train_save_and_load_what_one_does(start, make_config, run_toy, tmp_path, options):
    require(options)
    sections = {
        "policy": {"path": str(start)},
        "rollout": {"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0},
        "trainer": {"max_steps": 2, "learning_rate": 1e-4, "beta": 0.1, "micro_batch_size": 4},
        "checkpoint": {"every_steps": 2},
    }
    alone = {name: value for name, value in options.items() if name != "parallel"}
    one = make_config(**sections | {"trainer": sections["trainer"] | alone})
    two = make_config(**sections | {"trainer": sections["trainer"] | options}, cluster={"trainers": 2})
    trainer, pipeline, _ = run_toy(one)
    folder = run_ranks(two)
    trainer.sync_evaluated_weights()
    published = torch.load(folder.path / "state.pt", weights_only=True)
    policy = BLIP3oNext.from_pretrained(start)
    tied, before = policy.config.tie_word_embeddings, policy.ar.lm_head.weight.detach().clone()
    policy.ar = load_trained(policy.ar, folder.newest_checkpoint(), two)
    assert is_tied(policy.ar) == tied
    policy.save_pretrained(tmp_path / "policy")
    again = plain(tmp_path / "policy").state_dict()
    for name, tensor in pipeline.ar.state_dict().items():
        torch.testing.assert_close(published[name], tensor, atol=1e-4, rtol=0, msg=name)
        torch.testing.assert_close(again[name], published[name], atol=1e-5, rtol=0, msg=name)
    assert torch.equal(again[HEAD], again[EMBEDDING]) == tied == torch.equal(published[HEAD], published[EMBEDDING])
    assert torch.equal(again[HEAD], before) == ("lora" in options)
    assert json.loads((tmp_path / "policy" / "config.json").read_text())[TIE] == tied


def require(options):
    """DeepSpeed is an extra."""
    if options["parallel"]["type"] == "deepspeed":
        pytest.importorskip("deepspeed")


COUNTED = ("model", "optim", "averaged")
"""In the names of files that `checkpoint_bytes` foresees; the others are small, but not beside toy adapters."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2 and averages", "fsdp2 and lora", "deepspeed 1", "deepspeed 3"])
def test_a_resumed_run_of_two_ranks_stays_tied_or_not_and_its_checkpoints_have_the_size_foreseen(
    start, make_config, run_toy, name
):
    """Three steps, the last one in new processes from the checkpoint of the second, are one rank's three steps."""
    options = OPTIONS[name]
    require(options)
    sections = {
        "policy": {"path": str(start)},
        "rollout": {"prompts_per_step": 2, "group_size": 4, "record_every_steps": 0},
        "trainer": {"max_steps": 3, "learning_rate": 1e-4, "beta": 0.1, "micro_batch_size": 4},
        "checkpoint": {"every_steps": 2},
    }
    alone = {name: value for name, value in options.items() if name != "parallel"}
    one = make_config(**sections | {"trainer": sections["trainer"] | alone})
    two = make_config(**sections | {"trainer": sections["trainer"] | options}, cluster={"trainers": 2})
    trainer, _, metrics = run_toy(one)
    folder = run_in_two_parts(two)
    assert_same_run(folder, metrics, trainer)
    published = torch.load(folder.path / "state.pt", weights_only=True)
    tied = load_config(start).tie_word_embeddings
    assert tied == torch.equal(published[HEAD], published[EMBEDDING])
    saved = load_trained(BLIP3oNext.from_pretrained(start, parts=("ar",)).ar, folder.newest_checkpoint(), two)
    assert is_tied(saved) == tied
    kept = [file for file in folder.newest_checkpoint().rglob("*") if any(word in file.name for word in COUNTED)]
    assert sum(file.stat().st_size for file in kept) == pytest.approx(checkpoint_bytes(two, start), rel=0.1)


@pytest.mark.slow
def test_a_trained_policy_samples_with_vllm_as_it_scores(start, make_config, run_toy):
    """Load, train two steps, sync to vLLM: the sampler's log-probs are the plain class's."""
    from blip3o_grpo.policies import image_logprobs
    from blip3o_grpo.rollout import RolloutPipeline, load_prompts

    config = make_config(
        policy={"path": str(start)}, trainer={"max_steps": 2}, rewards=[{"name": "ocr"}], cluster={"threads": 1}
    )
    toy = config.model_copy(update={"run_dir": config.run_dir + "-toy"})
    trainer, _, _ = run_toy(toy)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        pipeline = RolloutPipeline.launch(config, start)
        weights = trainer.model.state_dict()
        pipeline.sync_weights(weights, version=2)
        (group,) = pipeline.sample(load_prompts(config.prompts.train)[:1], "eval", group_size=3)
        pipeline.close()
    finally:
        ray.shutdown()
    prompt = trainer.encoder.encode(load_prompts(config.prompts.train)[0].text)
    policy = BLIP3oNext.from_pretrained(start, parts=("ar",))
    policy.ar.load_state_dict(weights)
    assert RunFolder(toy.run_dir).newest_step() == 2
    for completion in group:
        ids = torch.tensor([[*prompt, *completion.token_ids.tolist()]])
        with torch.no_grad():
            expected, _ = image_logprobs(policy.ar, ids, torch.ones_like(ids), policy.image_tokens)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected[0], atol=1e-4, rtol=0)
