"""Memory of each kind of worker, from the shapes in a checkpoint's configuration: nothing is loaded or allocated.

Parameters are counted on PyTorch's meta device, and so are the activations that a training step keeps for its backward
pass: the model runs on shapes alone, with an attention that keeps what flash attention keeps. Left out, because only a
measurement can tell: CUDA's context, fragmentation, and the activations of decoders and rewards.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3Model
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.configs.head import LORA_TARGETS, FlowGRPOSection, NFTSection
from blip3o_grpo.configs.training import DDPSection, DeepSpeedSection, FSDP2Section
from blip3o_grpo.planning.sizes import Footprint
from blip3o_grpo.policies import BLIP3oNext, load_config
from blip3o_grpo.policies.blip3o_next.hub import diffusion_folder
from blip3o_grpo.policies.blip3o_next.logprobs import LOGITS_AT_ONCE
from blip3o_grpo.policies.blip3o_next.tied import is_tied
from blip3o_grpo.policies.types import Policy
from blip3o_grpo.rollout.workers.engine import PROMPT_TOKENS

FLOAT, BFLOAT = 4, 2
HEAD_STATES, HEAD_ACTIVATIONS = "head's hidden states", "head's activations"
CHUNKS = 3
"""Logits, log-probs and their gradient of one chunk (`policies/blip3o_next/logprobs.py`)."""


def footprints(config: RunConfig, policy_path: Path) -> dict[str, Footprint]:
    """Bytes of one trainer rank, sampler and decoder; a sampler's are what it needs at least."""
    model_config = load_config(policy_path)
    diffusion = diffusion_folder(policy_path, model_config.diffusion_name_or_path)
    with torch.device("meta"):
        policy = BLIP3oNext(model_config, diffusion, ("ar", "head"), None)
    wide = BFLOAT if config.policy.dtype == "bfloat16" else FLOAT
    parts = {name: sum(p.numel() for p in module.parameters()) for name, module in policy.parts().items()}
    num_tokens = policy.image_tokens.num_tokens
    image_rows = policy.image_tokens.size * model_config.hidden_size if is_tied(policy.ar) else 0
    sequences = config.rollout.prompts_per_chunk * config.rollout.group_size
    per_token = 2 * model_config.num_hidden_layers * model_config.num_key_value_heads * model_config.head_dim
    length = min(model_config.max_position_embeddings, num_tokens + PROMPT_TOKENS)
    return {
        "trainer": trainer_footprint(config, policy, length),
        "sampler": Footprint(
            {
                "weights": (parts["ar"] + image_rows) * wide,  # the sampler's head is a copy of these rows
                "key-value cache of a chunk": sequences * length * per_token * wide,
            },
            "vLLM's workspace; on a GPU of its own it takes 90 % of it, and uses what is left as cache",
        ),
        "decoder": Footprint(
            {
                **{name: numel * wide for name, numel in parts.items()},
                "captions of a batch": caption_values(policy, images_at_once(config)) * wide,
            },
            "activations of the head and the image decoder",
        ),
    }


def images_at_once(config: RunConfig) -> int:
    """Images of a decoder's batch: whole groups."""
    size = config.rollout.group_size * config.rollout.noises_per_completion
    return max(1, config.rollout.images_per_decode // size) * size


def caption_values(policy: BLIP3oNext, images: int) -> int:
    """Keys and values of all captions in all blocks, which a decoder keeps for all diffusion steps of a batch."""
    head = policy.sana.config
    width = head.num_cross_attention_heads * head.cross_attention_head_dim
    return 2 * head.num_layers * images * (policy.image_tokens.num_tokens + 1) * width


def trainer_footprint(config: RunConfig, policy: BLIP3oNext, length: int) -> Footprint:
    """One rank's weights, gradients, optimiser state and kept activations, `length` tokens a rollout.

    Where the tokens do not learn, the AR part has weights alone: it is read without a backward pass.
    """
    section, ranks, tokens = config.trainer, config.cluster.trainers, "tokens" in config.learn
    low = config.policy.dtype == "bfloat16"
    numel = sum(parameter.numel() for parameter in policy.ar.parameters())
    learning = num_adapter_values(policy, config) if section.lora else numel
    sharing = section.parallel
    deepspeed = isinstance(sharing, DeepSpeedSection)
    weight = BFLOAT if low and (section.lora or deepspeed) else FLOAT
    # DeepSpeed keeps the float32 copy of bfloat16 weights with Adam's two moments.
    adam = 3 * FLOAT if deepspeed and low else 2 * FLOAT
    stage = 3 if isinstance(sharing, FSDP2Section) else sharing.zero_stage if deepspeed else 0
    share = max(1, config.rollout.learnt_per_step // ranks)
    micro = section.micro_batch_size or share
    compute = BFLOAT if low else FLOAT
    items = {
        "weights": numel * weight // (ranks if stage == 3 else 1),
        "gradients": tokens * learning * (weight if deepspeed else FLOAT) // (ranks if stage >= 2 else 1),
        "buckets of DDP": learning * FLOAT if isinstance(sharing, DDPSection) and ranks > 1 else 0,
        "Adam": tokens * learning * adam // (ranks if stage >= 1 else 1),
        "reference": num_references(config) * numel * weight // (ranks if stage == 3 else 1),
        "average": learning * FLOAT // (ranks if stage == 3 else 1) if section.ema else 0,
        "working copy in bfloat16": numel * BFLOAT if low and weight == FLOAT and stage < 3 else 0,
        "gathered layer and head": largest_unit(policy) * compute if stage == 3 else 0,
        **head_footprint(config, policy),
    }
    if tokens:
        items |= {
            "activations": kept_activations(policy.config, micro, length, compute, section.gradient_checkpointing),
            "logits of a chunk": CHUNKS * FLOAT * min(LOGITS_AT_ONCE, micro * length * policy.config.num_image_tokens),
        }
    if deepspeed and sharing.offload_optimizer:
        items["Adam"] = 0
    if (deepspeed and sharing.offload_weights) or (isinstance(sharing, FSDP2Section) and sharing.cpu_offload):
        items |= {"weights": 0, "gradients": 0, "Adam": 0, "reference": 0, "average": 0}
    items = {name: size for name, size in items.items() if size}
    passing = ("working copy in bfloat16", "activations", "logits of a chunk", HEAD_STATES, HEAD_ACTIVATIONS)
    return Footprint(items, "CUDA's context, fragmentation", passing)


def num_references(config: RunConfig) -> int:
    """Frozen copies of the AR part on a rank: of the KL term, and of `text_kl` where it cannot share that one."""
    section = config.trainer
    if section.lora or "tokens" not in config.learn:
        return 0
    apart = section.text_kl and (section.sync_ref_model or not section.beta)
    return bool(section.beta) + bool(apart)


def head_footprint(config: RunConfig, policy: BLIP3oNext) -> dict[str, int]:
    """What a learning diffusion head adds to a rank: float32 copies of it, and what it learns from."""
    learning = num_head_values(policy, config)
    if not learning:
        return {}
    whole = sum(value.numel() for part in (policy.connector, policy.sana) for value in part.parameters())
    copies = 1 + bool(config.head.method.kl) + head_is_averaged(config)
    hidden = (policy.image_tokens.num_tokens + 1) * policy.config.hidden_size
    rows = head_rows(config)
    return {
        "head, its reference and average": (whole * copies + learning * bool(config.trainer.ema)) * FLOAT,
        "head's gradients and Adam": 3 * learning * FLOAT,
        HEAD_STATES: rows * hidden * FLOAT,
        HEAD_ACTIVATIONS: head_activations(config, policy, rows),
    }


def head_rows(config: RunConfig) -> int:
    """Images times noise levels or noisy steps of one forward and backward pass of the head."""
    method = config.head.method
    each = method.window if isinstance(method, FlowGRPOSection) else method.times_per_image
    images = max(1, config.head.micro_batch_size // each)
    return each * min(images, -(-config.rollout.images_per_step // config.cluster.trainers))


def head_activations(config: RunConfig, policy: BLIP3oNext, rows: int, device: str = "meta") -> int:
    """Bytes that so many rows of the head's forward pass keep for their backward pass, both branches where guided.

    Of adapters the inner values are left out.
    """
    dtype = torch.bfloat16 if config.policy.dtype == "bfloat16" else torch.float32
    connector, transformer = copy.deepcopy(policy.connector).train(), copy.deepcopy(policy.sana).train()
    for name, module in transformer.named_modules():
        for value in module.parameters(recurse=False):
            value.requires_grad_(config.head.lora is None or bool(re.fullmatch(LORA_TARGETS, name)))
    parameters = [*connector.parameters(), *transformer.parameters()]
    for value in parameters:
        value.data = value.data.to(dtype)  # as autocast computes
    size = transformer.config.sample_size
    with torch.device(device):
        hidden = torch.zeros(rows, policy.image_tokens.num_tokens + 1, policy.config.hidden_size, dtype=dtype)
        latents = torch.zeros(rows, transformer.config.in_channels, size, size, dtype=dtype)
        times = torch.zeros(rows)
    guided = config.head.guided and config.rollout.guidance_scale != 1

    def branches() -> None:
        conditions = [connector(hidden)]
        if guided:
            conditions.append(connector(hidden[:1, :1]).expand(rows, -1, -1))
        for condition in conditions:
            transformer(hidden_states=latents, timestep=times, encoder_hidden_states=condition)

    return _bytes_kept(parameters, branches)


def head_is_averaged(config: RunConfig) -> bool:
    """Whether rollouts are drawn by an average of the head."""
    return isinstance(config.head.method, NFTSection) and config.head.method.old_decay > 0


def num_head_values(policy: Policy, config: RunConfig) -> int:
    """Parameters of the diffusion head that learn; 0 where it does not."""
    if "head" not in config.learn:
        return 0
    connector = sum(value.numel() for value in policy.connector.parameters())
    if not config.head.lora:
        return connector + sum(value.numel() for value in policy.transformer.parameters())
    return connector + sum(
        config.head.lora.rank * (module.in_features + module.out_features)
        for name, module in policy.transformer.named_modules()
        if re.fullmatch(LORA_TARGETS, name)
    )


def num_adapter_values(policy: BLIP3oNext, config: RunConfig) -> int:
    """Parameters of the LoRA adapters."""
    lora = config.trainer.lora
    return sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in policy.ar.named_modules()
        if name.rpartition(".")[2] in lora.targets
    )


def largest_unit(policy: BLIP3oNext) -> int:
    """Parameters that sharded training gathers at once: two layers (one is fetched ahead), and the head."""
    layer = sum(parameter.numel() for parameter in policy.ar.model.layers[0].parameters())
    return 2 * layer + policy.ar.lm_head.weight.numel()


def kept_activations(config: Qwen3Config, batch: int, length: int, bytes_per_value: int, checkpointing: bool) -> int:
    """Bytes that the AR part's forward pass keeps for its backward pass; flash attention is assumed.

    With checkpointing, what one layer keeps while it is computed again is added.
    """
    dtype = {FLOAT: torch.float32, BFLOAT: torch.bfloat16}[bytes_per_value]
    layers = config.num_hidden_layers
    if not checkpointing:
        return _kept(config, layers, batch, length, dtype, False)
    return _kept(config, layers, batch, length, dtype, True) + _kept(config, 1, batch, length, dtype, False)


def _kept(
    config: Qwen3Config,
    layers: int,
    batch: int,
    length: int,
    dtype: torch.dtype,
    checkpointing: bool,
    device: str = "meta",
) -> int:
    values = config.to_dict() | {
        "num_hidden_layers": layers,
        "vocab_size": 8,
        "layer_types": None,
        "pad_token_id": None,
    }
    values.pop("model_type")
    body_config = Qwen3Config(**values)
    body_config._attn_implementation = "shapes"
    with torch.device(device):
        body = Qwen3Model(body_config).to(dtype).train()
        inputs = torch.zeros(batch, length, config.hidden_size, dtype=dtype).requires_grad_()
        mask = torch.ones(batch, length, dtype=torch.long)
    if checkpointing:
        body.gradient_checkpointing_enable({"use_reentrant": False})
    return _bytes_kept(body.parameters(), lambda: body(inputs_embeds=inputs, attention_mask=mask, use_cache=False))


def _bytes_kept(parameters: Iterable[torch.Tensor], run: Callable[[], Any]) -> int:
    """Bytes of all but the parameters that `run` keeps for its backward pass."""
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor  # held, so that no later tensor gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _FlashShapes(torch.autograd.Function):
    """Keeps for the backward pass what flash attention keeps: its inputs, its output, one float per row."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> tuple:
    return _FlashShapes.apply(query, key, value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("shapes", _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register("shapes", lambda *_, **__: None)
