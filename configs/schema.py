"""The typed form of a run's YAML file: one pydantic model per section, strict, with vetted defaults.

A recipe states only what differs from these defaults. Nothing here imports torch, Ray or vLLM, so a typo is
reported before any model loads. Rollouts have no top-k or top-p, evaluations do: the trainer must compute
log-probabilities over exactly the support the sampler draws from.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from blip3o_grpo.configs.blip3o import check_blip3o
from blip3o_grpo.configs.cluster import ClusterSection
from blip3o_grpo.configs.decoder import DecoderSection
from blip3o_grpo.configs.faults import FaultsSection
from blip3o_grpo.configs.free_form import check_free_form
from blip3o_grpo.configs.gold import check_gold
from blip3o_grpo.configs.guards import GuardsSection
from blip3o_grpo.configs.head import HeadSection, check_learning
from blip3o_grpo.configs.policy import PolicySection
from blip3o_grpo.configs.saving import CurriculumSection, DynamicSamplingSection, ReplaySection, check_saving
from blip3o_grpo.configs.section import Section
from blip3o_grpo.configs.text_kl import check_text_kl
from blip3o_grpo.configs.training import TrainerSection, whole_batches


class PromptsSection(Section):
    """Prompt files: `.txt` (one prompt a line) or `.jsonl` (`prompt` plus any metadata), UTF-8.

    Relative paths are resolved against the folder of the YAML file that names them.
    """

    train: str
    """Prompts to train on."""
    heldout: str
    """Prompts of evaluations."""


class RolloutSection(Section):
    """How groups are sampled and decoded during training."""

    prompts_per_step: int = Field(default=8, ge=1, le=1_000_000)
    """Prompts of a batch of rollouts, over all trainer ranks; `trainer.num_iterations` optimiser steps learn from
    it."""
    group_size: int = Field(default=8, ge=2, le=4096)
    """Rollouts per prompt (TRL's `num_generations`); an advantage needs at least two siblings."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the draws of image tokens; the loss uses the same."""
    noise: Literal["shared", "independent"] = "shared"
    """Diffusion noise of a group: the same draws for all members, or their own."""
    noises_per_completion: int = Field(default=1, ge=1, le=4096)
    """Images painted from one completion, each from another noise. Tokens are judged by the mean of their images, the
    head (`learn`) by the differences between them; a step has prompts_per_step x group_size x this many images."""
    num_diffusion_steps: int = Field(default=8, ge=1, le=1000)
    """Denoising steps of the diffusion head."""
    guidance_scale: float = Field(default=2.0, ge=1)
    """Classifier-free guidance of the diffusion head; 1: none."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels (1: noise alone, 0: none) between which guidance acts; diffusion steps outside it cost half. Of N
    steps the levels s are 1, (N - 1)/N, ..., 1/N as the scheduler's shift k moves them, to k s / (1 + (k - 1) s): the
    tiny policies' k is 1, the released one's 3. `blip3o-grpo steps --guidance-interval` says what rewards make of
    it."""
    prompts_per_chunk: int = Field(default=4, ge=1)
    """Prompts a sampler draws in one engine call; later stages start when a chunk is done."""
    images_per_decode: int = Field(default=32, ge=1)
    """Images a decoder decodes in one batch (whole groups, at least one); rewards start when a batch is decoded."""
    decoder: DecoderSection = DecoderSection()
    """What makes decoders faster or smaller."""
    enforce_eager: bool = True
    """Run the sampler's model as it is. False compiles it: faster sampling, a longer start (on CPU it needs a C++
    compiler). vLLM's name."""
    max_staleness: int = Field(default=0, ge=0, le=1)
    """Updates that rollouts may be behind the policy that learns from them. 1: the next step's are drawn while this one
    trains, and the loss corrects for the difference, token by token; it pays where samplers and decoders have GPUs that
    the trainer does not use. 0: every rollout is of the newest weights."""
    curriculum: CurriculumSection | None = None
    """Which prompts a step has. None: all in turn, each pass in a new order."""
    dynamic_sampling: DynamicSamplingSection | None = None
    """None: every group is learnt from."""
    subset_size: int | None = Field(default=None, ge=2)
    """Members of a group that are learnt from: those whose rewards have the largest variance among all choices of so
    many, which are some of the best and some of the worst (PODS, arXiv 2504.13818). Advantages are within these. None:
    all `group_size`."""
    replay: ReplaySection | None = None
    """None: every group is new."""
    record_every_steps: int = Field(default=1, ge=0)
    """Write each group's best and worst image of step 1 and of every so many steps (0: never); with
    `trainer.num_iterations`, under the first step on the same images."""
    record_images: Literal["extremes", "all"] = "extremes"
    """`all` also keeps the images between best and worst, for `blip3o-grpo rescore`."""

    @property
    def learnt_group_size(self) -> int:
        """Members of a group that tokens learn from."""
        return self.subset_size or self.group_size

    @property
    def learnt_per_step(self) -> int:
        """Token sequences that an optimiser step learns from, over all trainer ranks."""
        return self.prompts_per_step * self.learnt_group_size

    @property
    def selects(self) -> bool:
        """Whether a step may learn from other groups or members than it drew."""
        return bool(self.dynamic_sampling or self.subset_size or self.replay)

    @property
    def completions_per_step(self) -> int:
        """Token sequences drawn for a batch, over all trainer ranks: at least, with `dynamic_sampling`."""
        return (self.prompts_per_step - (self.replay.groups_per_step if self.replay else 0)) * self.group_size

    @property
    def images_per_step(self) -> int:
        """Images painted from them."""
        return self.completions_per_step * self.noises_per_completion

    @field_validator("guidance_interval")
    @classmethod
    def _noise_levels(cls, interval: tuple[float, float]) -> tuple[float, float]:
        low, high = interval
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"rollout.guidance_interval={list(interval)} is no interval of noise levels; give [LOW, HIGH] with "
                "0 <= LOW < HIGH <= 1"
            )
        return interval


RUNTIME_ENV_KEYS = (
    "conda",
    "config",
    "env_vars",
    "image_uri",
    "pip",
    "py_executable",
    "py_modules",
    "uv",
    "working_dir",
)
"""Of `ray.runtime_env.RuntimeEnv`, what makes sense for one reward; Ray itself checks the values."""


class RewardSection(Section):
    """One reward: what computes it and how it counts."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Column name in logs (`reward/<name>`)."""
    type: str | None = None
    """Registered name, or `module:name` of a class or function; defaults to `name`."""
    folder: str | None = None
    """Where the module of `module:name` lies. Found when a recipe is read: beside the YAML file, else in the working
    folder; None: wherever Python imports from. Saved with a run, so that it is found again."""
    weight: float = 1.0
    """Factor of its score in the sum; 0: measured, not trained on."""
    guard: bool | None = None
    """Whether a fall of it is a warning even if it is trained on. None: what the reward declares, which a run writes
    here, so that reports need not import it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the reward's constructor or function."""
    on_error: Literal["stop", "skip"] = "stop"
    """After retries: stop the run, or drop the whole group and count it."""
    replicas: int | None = Field(default=None, ge=1, le=4096)
    """Workers of this reward; None: `cluster.rewards`."""
    batch_size: int | None = Field(default=None, ge=1)
    """Most images in one call of the reward, of any groups; None, and for a group reward: one group a call."""
    runtime_env: dict[str, Any] | None = None
    """Ray runtime environment of this reward's workers (another interpreter, packages, variables). The class need
    not be importable anywhere else then, so its name and options are checked when they start."""

    @field_validator("runtime_env")
    @classmethod
    def _known_runtime_env(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for key in value or {}:
            if key not in RUNTIME_ENV_KEYS:
                near = difflib.get_close_matches(key, RUNTIME_ENV_KEYS, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(RUNTIME_ENV_KEYS)}"
                raise ValueError(f"rewards: unknown key {key!r} in runtime_env; {hint}")
        return value

    @model_validator(mode="after")
    def _nothing_secret(self) -> RewardSection:
        for key in ("options", "runtime_env"):
            check_free_form(getattr(self, key), f"reward {self.name!r}: {key}")
        return self

    @property
    def target(self) -> str:
        """Registered name or `module:name` to build."""
        return self.type or self.name


class EvaluationSection(Section):
    """Held-out evaluation, before, during and after training, always with the same seeds and noise."""

    num_prompts: int = Field(default=64, ge=1)
    """The first so many held-out prompts."""
    images_per_prompt: int = Field(default=4, ge=1, le=4096)
    """Images drawn for each of them."""
    every_steps: int = Field(default=0, ge=0)
    """Also evaluate every so many steps (0: only before and after)."""
    num_diffusion_steps: int | None = Field(default=None, ge=1, le=1000)
    """None: as in rollouts."""
    temperature: float | None = Field(default=None, gt=0)
    """None: as in rollouts."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the fewest image tokens that together have this probability. The released demo names 0.95. Only
    evaluations may cut the distribution: the loss needs that of all image tokens."""
    top_k: int = Field(default=0, ge=0)
    """Draw from so many of the likeliest image tokens; 0: all. The released demo names 1200."""
    grid_prompts: int = Field(default=8, ge=1)
    """Prompts shown in the before/after picture grids."""


class CheckpointSection(Section):
    """Checkpoints inside the run folder."""

    every_steps: int = Field(default=25, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(default=2, ge=1)
    """The newest so many stay."""
    keep_best: int = Field(default=1, ge=0)
    """So do the best so many: by held-out reward if `evaluation.every_steps` is set (checkpoints of other steps do not
    compete), else by the mean training reward of the `every_steps` steps before. With `guards.gold`: by the mean of the
    held-out gold rewards."""


class WarningsSection(Section):
    """Signs that rewards are being hacked: limits that warn in the terminal and in the report and stop nothing.

    None switches a limit off.
    """

    window_steps: int = Field(default=5, ge=1)
    """Limits hold for means over so many steps; the first such mean is what later ones are compared with."""
    kl_budget: float | None = Field(default=0.2, gt=0)
    """KL to the starting policy (nats per token). Good runs of the tiny recipes end near 0.03; at 0.5 plates changed
    colour."""
    image_change: float | None = Field(default=0.5, gt=0)
    """Share by which a statistic of the training images (`image/...`) may move."""
    reward_drop: float | None = Field(default=0.1, gt=0)
    """By how much a reward that is not trained on (weight 0), or a reference guard, may fall."""


class RunConfig(Section):
    """A whole run."""

    run_dir: str = Field(min_length=1)
    """Folder of the run; the same command on it resumes."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every seed and every diffusion noise of the run derives from it."""
    learn: tuple[Literal["tokens", "head"], ...] = Field(default=("tokens",), min_length=1)
    """Which halves of the policy learn: the AR part that writes tokens, the diffusion head that paints them."""
    policy: PolicySection = PolicySection()
    prompts: PromptsSection
    rollout: RolloutSection = RolloutSection()
    rewards: tuple[RewardSection, ...] = Field(min_length=1)
    cluster: ClusterSection = ClusterSection()
    trainer: TrainerSection = TrainerSection()
    head: HeadSection = HeadSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    faults: FaultsSection = FaultsSection()
    warnings: WarningsSection = WarningsSection()
    guards: GuardsSection = GuardsSection()
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where metrics go beside `metrics.jsonl`."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        names = [reward.name for reward in self.rewards]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"rewards: the name {repeated[0]!r} is used twice; names are column names and must differ")
        if not any(reward.weight for reward in self.rewards):
            raise ValueError("rewards: all weights are 0, so no advantage could ever be different from 0")
        if self.rollout.prompts_per_step % self.cluster.trainers:
            raise ValueError(
                f"rollout.prompts_per_step={self.rollout.prompts_per_step} does not divide over "
                f"cluster.trainers={self.cluster.trainers}"
            )
        mode = self.trainer.vllm_importance_sampling_mode
        if self.rollout.max_staleness and not mode.startswith("token"):
            raise ValueError(
                f"rollout.max_staleness=1 needs a loss that corrects token by token; over a whole image "
                f"(trainer.vllm_importance_sampling_mode={mode}) an update's small changes add up and few images are "
                "left; use token_truncate"
            )
        if self.rollout.max_staleness and self.trainer.num_iterations > 1:
            raise ValueError(
                f"rollout.max_staleness=1: with trainer.num_iterations={self.trainer.num_iterations} rollouts would be "
                f"{self.trainer.num_iterations} updates behind; give one of the two"
            )
        check_saving(self)
        share = self.rollout.learnt_per_step // self.cluster.trainers
        micro = self.trainer.micro_batch_size
        if micro and share % micro:
            raise ValueError(f"trainer.micro_batch_size={micro} does not divide the {share} rollouts of a rank's step")
        for section in ("checkpoint", "evaluation"):
            values, updates = getattr(self, section), self.trainer.num_iterations
            given = "every_steps" in values.model_fields_set
            whole_batches(f"{section}.every_steps", values.every_steps, updates, given=given)
        if self.policy.type == "blip3o":
            check_blip3o(self)
        check_learning(
            self.learn,
            self.head,
            self.trainer,
            noises=self.rollout.noises_per_completion,
            staleness=self.rollout.max_staleness,
            steps=self.rollout.num_diffusion_steps,
            guidance_scale=self.rollout.guidance_scale,
        )
        check_text_kl(self.trainer.text_kl, self.learn, self.cluster.trainers)
        check_gold(
            self.guards.gold,
            {reward.name: reward.weight for reward in self.rewards},
            evaluated_every=self.evaluation.every_steps,
            max_steps=self.trainer.max_steps,
            num_iterations=self.trainer.num_iterations,
            num_prompts=self.evaluation.num_prompts,
            keep_best=self.checkpoint.keep_best,
        )
        return self
