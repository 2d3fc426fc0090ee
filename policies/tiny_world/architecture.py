"""The tiny architecture: BLIP3o-NEXT with small numbers, and its tokenizer.

Same classes, layout and prompt format as the released model; 56 x 56 px images, 7 x 7 image tokens. `random_policy`
writes it with random weights, for tests and as the start of `scripts/build_tiny_policy.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config

from blip3o_grpo.policies.blip3o_next.config import load_config
from blip3o_grpo.policies.blip3o_next.policy import BLIP3oNext, write_config, write_json
from blip3o_grpo.policies.blip3o_next.prompt_encoder import REQUEST, SYSTEM, PromptEncoder
from blip3o_grpo.policies.blip3o_next.tokenizer_files import make_readable
from blip3o_grpo.policies.blip3o_next.vision import VQSigLIP2

NUM_IMAGE_TOKENS = 1536
NUM_SCALE_TOKENS = 3
LATENT_CHANNELS = 32
CAPTION_CHANNELS = 192

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOWER = {
    "image_size": 56,
    "patch_size": 8,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu_pytorch_tanh",
    "vision_use_head": False,
    "bottleneck_dim": 16,
    "decoder_layers": 1,
    "l2_normalized": False,
}
TRANSFORMER = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "num_layers": 4,
    "num_cross_attention_heads": 6,
    "cross_attention_head_dim": 32,
    "cross_attention_dim": 192,
    "caption_channels": CAPTION_CHANNELS,
    "mlp_ratio": 2.5,
    "sample_size": 7,
    "patch_size": 1,
    "interpolation_scale": 1,
}
AUTOENCODER = {
    "latent_channels": LATENT_CHANNELS,
    "attention_head_dim": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": [16, 32, 64, 128],
    "decoder_block_out_channels": [16, 32, 64, 128],
    "encoder_layers_per_block": [0, 1, 1, 1],
    "decoder_layers_per_block": [0, 1, 1, 2],
    "encoder_qkv_multiscales": [[], [], [], []],
    "decoder_qkv_multiscales": [[], [], [], []],
    "scaling_factor": 1.0,
}
SCHEDULER = {"num_train_timesteps": 1000, "shift": 1.0}


def make_tokenizer(
    corpus: list[str], num_image_tokens: int = NUM_IMAGE_TOKENS, num_text_tokens: int | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE: lower-case words of `corpus` are tokens, capitals and digits stay single characters.

    The policy can spell only what it can see letter by letter; bytes cover everything else. Qwen's chat tokens,
    `<im_start>`, `<im_end>`, the scale tokens and the image tokens follow in the released order. Up to
    `num_text_tokens` (chat tokens included) the vocabulary is filled with entries that no text is cut into.
    """
    image = ["<im_start>", "<im_end>", *(f"<S{i}>" for i in range(NUM_SCALE_TOKENS))]
    return chat_tokenizer(corpus, image + [f"<I{i}>" for i in range(num_image_tokens)], num_text_tokens)


def chat_tokenizer(
    corpus: list[str], image_tokens: list[str], num_text_tokens: int | None = None
) -> PreTrainedTokenizerFast:
    """As `make_tokenizer`, with any tokens after the chat's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[A-Z0-9]|\n| ?[a-z]+| ?[^\sA-Za-z0-9]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fixed = [SYSTEM, REQUEST, "system\nuser\nassistant\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(fixed + corpus, trainer)
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if num_text_tokens is not None:
        values = json.loads(tokenizer.to_str())
        known = values["model"]["vocab"]
        known |= {f"<unused {i}>": i for i in range(len(known), num_text_tokens - len(chat))}
        tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in chat + image_tokens])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_config(
    tokenizer: PreTrainedTokenizerFast, num_image_tokens: int = NUM_IMAGE_TOKENS, tie: bool = False
) -> Qwen3Config:
    """Configuration of the tiny policy for a tokenizer of `make_tokenizer`."""
    first_image = tokenizer.convert_tokens_to_ids("<I0>")
    first_scale = tokenizer.convert_tokens_to_ids("<S0>")
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tie,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        image_start_tag_id=tokenizer.convert_tokens_to_ids("<im_start>"),
        image_end_tag_id=tokenizer.convert_tokens_to_ids("<im_end>"),
        scale_start_token_id=first_scale,
        scale_end_token_id=first_scale + NUM_SCALE_TOKENS - 1,
        num_scale_tokens=NUM_SCALE_TOKENS,
        image_start_token_id=first_image,
        image_end_token_id=first_image + num_image_tokens - 1,
        num_image_tokens=num_image_tokens,
        mm_hidden_size=TOWER["hidden_size"],
        vision_tower_config=TOWER,
        diffusion_name_or_path="diffusion",
    )
    config.released_model_type = "blip3o_qwen_grpo"
    return config


def random_policy(
    folder: str | Path,
    seed: int = 0,
    corpus: list[str] | None = None,
    num_image_tokens: int = NUM_IMAGE_TOKENS,
    tie: bool = False,
) -> Path:
    """Write a tiny policy with random weights in the released layout and return its folder.

    Args:
        folder: created if missing.
        seed: of the weights.
        corpus: captions whose lower-case words become tokens; by default a few of the tiny world's.
        num_image_tokens: size of the codebook.
        tie: whether the head is the embedding.
    """
    folder = Path(folder)
    corpus = corpus or ['a red sign that says "TAXI"', "a photo of two blue circles"]
    tokenizer = make_tokenizer(corpus, num_image_tokens)
    config = make_config(tokenizer, num_image_tokens, tie)
    for name, values in (
        ("transformer/config.json", {"_class_name": "SanaTransformer2DModel", **TRANSFORMER}),
        ("vae/config.json", {"_class_name": "AutoencoderDC", **AUTOENCODER}),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler", **SCHEDULER}),
    ):
        write_json(folder / config.diffusion_name_or_path / name, values)
    write_config(folder, config)
    tokenizer.save_pretrained(folder)
    make_readable(folder)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = load_config(folder)
    policy = BLIP3oNext(
        config,
        folder / config.diffusion_name_or_path,
        ("ar", "head"),
        PromptEncoder.from_pretrained(folder),
    )
    policy.vision = VQSigLIP2(TOWER, num_image_tokens)
    torch.set_rng_state(state)
    policy.save_pretrained(folder)
    return folder
