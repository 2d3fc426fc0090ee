"""Malformed recipes: run, warm start, command-line overrides."""

from __future__ import annotations

import yaml

from tests.robustness.case import Case, World

OVERRIDES = [
    # unknown keys
    ("trainer.learning_rte=1", "did you mean 'learning_rate'?"),
    ("rollout.groupsize=4", "did you mean 'group_size'?"),
    ("cluster.adress=auto", "did you mean 'address'?"),
    ("rewards.0.wieght=1", "did you mean 'weight'?"),
    ("trainer.lora.rnk=4", "did you mean 'rank'?"),
    ("trainer.parallel={type: fsdp2, offload: true}", "unknown key 'trainer.parallel.offload'"),
    ("zzz.zzz=1", "unknown key 'zzz'"),
    ("policy.path.x=1", "nothing can be set below text at 'x'"),
    # wrong types
    ("rollout=3", "'rollout' is 3"),
    ("rewards=ocr", "'rewards' is 'ocr'"),
    ("rewards.0=ocr", "'rewards.0' is 'ocr'"),
    ("rewards=[]", "at least 1 item"),
    ("seed=many", "'seed' is 'many'"),
    ("seed=1.5", "'seed' is 1.5"),
    ("run_dir=[a]", "'run_dir' is a list"),
    ("run_dir=", "'run_dir' is empty"),
    ("run_dir=''", "'run_dir' is ''"),
    ("trainer.max_steps=[1]", "'trainer.max_steps' is a list"),
    ("rewards.0.options=[1]", "'rewards.0.options' is a list"),
    ("trainer.lora=yes", "'trainer.lora' is true"),
    ("trainer.max_steps=true", "'trainer.max_steps' is true"),
    ("trainer.beta=on", "'trainer.beta' is true"),
    ("rewards.0.weight=no", "'rewards.0.weight' is false"),
    ("report_to=tensorboard", "'report_to' is 'tensorboard'"),
    # out of range
    ("seed=-1", "'seed' is -1"),
    ("seed=2147483648", "'seed' is 2147483648"),
    ("rollout.group_size=1", "'rollout.group_size' is 1"),
    ("rollout.temperature=0", "'rollout.temperature' is 0"),
    ("rollout.guidance_scale=0.5", "'rollout.guidance_scale' is 0.5"),
    ("trainer.max_steps=0", "'trainer.max_steps' is 0"),
    ("rollout.decoder.vae_tiling=true", "0.054 on average, and options may move them by 0.0001 at most"),
    ("trainer.learning_rate=-1e-4", "'trainer.learning_rate' is -0.0001"),
    ("cluster.gpus_per_sampler=2", "'cluster.gpus_per_sampler' is 2"),
    ("cluster.trainers=0", "'cluster.trainers' is 0"),
    ("checkpoint.keep=0", "'checkpoint.keep' is 0"),
    ("trainer.ema.decay=1", "'trainer.ema.decay' is 1"),
    # no numbers
    ("rollout.temperature=.nan", "finite"),
    ("rewards.0.weight=.inf", "finite"),
    ("trainer.beta=nan", "finite"),
    ("rewards.0.options.min_confidence=.nan", "options.min_confidence is nan"),
    # words
    ("rollout.noise=shred", "allowed: 'shared' or 'independent'"),
    ("trainer.loss_type=ppo", "allowed: 'grpo'"),
    ("policy.dtype=float16", "allowed: 'float32' or 'bfloat16'"),
    ("trainer.parallel.type=fsdp", "'ddp', 'fsdp2', 'deepspeed'"),
    ("report_to=[wandb]", "report_to: wandb is not installed"),
    ("report_to=[trackio]", "report_to: trackio is not installed"),
    ("report_to=[mlflow]", "'report_to.0' is 'mlflow'"),
    # what does not fit together
    ("rewards.0.weight=0", "all weights are 0"),
    ("trainer.micro_batch_size=3", "micro_batch_size=3 does not divide"),
    ("cluster.trainers=3", "does not divide over cluster.trainers=3"),
    ("rewards=[{name: ocr}, {name: ocr}]", "'ocr' is used twice"),
    ("trainer.num_iterations=7", "is no multiple of trainer.num_iterations=7"),
    ("trainer.loss_type=cispo", "trainer.epsilon_high is not given"),
    ("trainer.loss_type=luspo", "give sequence"),
    ("trainer.steps_per_generation=2", "for more steps on the same ones trainer.num_iterations"),
    ("trainer={sync_ref_model: true, beta: 0}", "with beta=0 there is no reference"),
    # rewards
    ("rewards.0.name=OCR", "'rewards.0.name' is 'OCR'"),
    ("rewards.0.name=../x", "'rewards.0.name' is '../x'"),
    ("rewards.0.name=ocrr", "did you mean 'ocr'?"),
    ("rewards.0.type=no_such_module:Reward", "importing 'no_such_module' failed"),
    ("rewards.0.type=json:JSONDecodr", "did you mean json:JSONDecoder?"),
    ("rewards.0.type=json:loads", "takes no 'images'"),
    ("rewards.0.type=':'", "write module:name"),
    ("rewards.0.options.varient=exact", "did you mean 'variant'?"),
    ("rewards.0.options.variant=best", "variant"),
    ("rewards.0.options.min_confidence=high", "wrong type"),
    ("rewards.0.runtime_env.env_var={A: b}", "did you mean 'env_vars'?"),
    # secrets
    ("rewards.0.options.api_key=abcdef", "options.api_key looks like a secret"),
    ("rewards.0.options.url=https://me:pass@host/x", "options.url looks like a secret"),
    ("rewards.0.runtime_env.env_vars.HF_TOKEN=abcdef", "runtime_env.env_vars.HF_TOKEN looks like a secret"),
    ("rewards.0.runtime_env.pip=['x @ git+https://abc@host/x']", "runtime_env.pip.0 looks like a secret"),
    ("rewards.0.options.x=hf_abcdefghijklmnopqrstuvwxyz", "options.x looks like a secret"),
    # how overrides are written
    ("--=1", "unknown key '--'"),
    ("=1", "expected `section.key=value`"),
    ("trainer", "expected `section.key=value`"),
    ("seed=[", "is not a YAML value"),
    ("seed=2024-13-01", "is not a YAML value"),
    ("seed=" + "[" * 3000, "is not a YAML value"),
    ("rewards.\u00b2.weight=2", "is no item of a list of 1"),
    ("rewards.1.weight=2", "'1' is no item of a list of 1"),
    ("rewards.first.weight=2", "'first' is no item of a list of 1"),
    # paths
    ("run_dir=~nobody-of-this-name/x", "no user '~nobody-of-this-name'"),
    ("policy.path=~nobody-of-this-name/x", "no user '~nobody-of-this-name'"),
    ('run_dir="a\\0b"', "'run_dir' is 'a\\x00b'"),
    ("policy.path=/nowhere/at-all", "no such folder"),
    ("prompts.train=/nowhere/train.jsonl", "no such prompt file"),
    ("run_dir=/proc/x", "/proc is the kernel's and no disk"),
    ("run_dir=/sys/fs/x", "/sys is the kernel's and no disk"),
    ("run_dir=/dev/x", "/dev is the kernel's and no disk"),
    ("run_dir=a\udcff", "is not a YAML value"),
    ('run_dir="a\\ud83d"', "'run_dir' is 'a\\ud83d'; give text that UTF-8 can say"),
    ('prompts.heldout="\\ud83d"', "prompt files end in .txt"),
    ('rewards.0.name="\\ud83d"', "give text that UTF-8 can say"),
    # more than there will ever be
    ("rollout.group_size=1000000000", "'rollout.group_size' is 1000000000; give 4096 or less"),
    ("rollout.num_diffusion_steps=1000000", "give 1000 or less"),
    ("evaluation.images_per_prompt=1000000000", "give 4096 or less"),
    ("cluster.samplers=1000000000", "give 4096 or less"),
    ("trainer.max_steps=1000000000000", "give 1000000000 or less"),
]

FILES = [
    ("empty", b"", "expected `key: value` lines at the top level, found nothing"),
    ("a list", b"- a\n- b\n", "found a list"),
    ("a word", b"hello\n", "found text"),
    ("bad indentation", b"a: 1\n  b: 2\n", ":2: not valid YAML"),
    ("a tab", b"a:\n\tb: 1\n", "not valid YAML"),
    ("a key twice", b"seed: 1\nseed: 2\n", "'seed' appears twice"),
    ("Latin-1", "run_dir: caf\xe9\n".encode("latin-1"), "not UTF-8 (byte 12)"),
    ("NUL bytes", b"run_dir: a\0b\n", "not valid YAML"),
    ("a Python object", b"run_dir: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
    ("an undefined alias", b"run_dir: *x\n", "undefined alias"),
    ("an alias of itself", b"rewards: &a [*a]\n", "aliases unfold"),
    ("an alias bomb", "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n"
                                                  for i in range(1, 9)), "aliases unfold"),
    ("very deep", b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    ("a month 13", b"seed: 2024-13-01\n", "not valid YAML"),
    ("a number of 5000 digits", b"seed: " + b"1" * 5000, "not valid YAML"),
    ("2 MB", b"#" * 2_000_000, "larger than"),
    ("no text at all", bytes(range(256)), "spoilt.yaml"),
    ("a list as a key", b"? [a, b]\n: 1\n", "not valid YAML"),
]  # fmt: skip

WARMSTART = [
    ("stategy: joint", "did you mean 'strategy'?"),
    ("strategy: both", "allowed: 'joint' or 'sequential'"),
    ("ar_steps: 5", "only for strategy sequential"),
    ("{strategy: sequential, ar_steps: 5000}", "more than max_steps"),
    ("batch_size: 0", "'batch_size' is 0"),
    ("caption_swap: 1", "'caption_swap' is 1"),
    ("learning_rate: .inf", "finite"),
    ("max_grad_norm: true", "'max_grad_norm' is true; it takes no true or false"),
    ("images: null", "'images' is empty; give text"),
    ("captions: /nowhere/captions.jsonl", "captions: /nowhere/captions.jsonl does not exist"),
]


def _file(content: bytes | str):
    return lambda world: world.cli("train", world.write("spoilt.yaml", content))


def _warmstart(changes: str):
    def act(world: World) -> str:
        values = {"run_dir": str(world.folder / "warm"), "images": ".", "captions": "c.jsonl"} | yaml.safe_load(changes)
        return world.cli("warmstart", world.write("warm.yaml", yaml.safe_dump(values)))

    return act


CASES = [
    *(Case("override", text[:60], lambda w, text=text: w.train("--", text), (says,)) for text, says in OVERRIDES),
    *(Case("recipe", name, _file(content), ("spoilt.yaml", says)) for name, content, says in FILES),
    *(Case("warm start", text, _warmstart(text), (says,)) for text, says in WARMSTART),
    Case("recipe", "a folder", lambda world: world.cli("train", world.folder), ("is a folder",)),
    Case(
        "recipe",
        "a file with nearly this name",
        lambda world: world.recipe(name="my_recipe.yaml") and world.cli("train", world.folder / "my_recip.yaml"),
        ("no such file; did you mean", "my_recipe.yaml"),
    ),
    Case("recipe", "a required key", lambda world: world.cli("train", world.write("spoilt.yaml", "seed: 1\n")),
         ("'run_dir' is required",)),
]  # fmt: skip
