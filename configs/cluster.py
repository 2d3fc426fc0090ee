"""The section `cluster`: Ray actors per stage, and the machines they are meant for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from blip3o_grpo.configs.section import Section


class ClusterSection(Section):
    """Ray actors per stage, the GPUs and threads each may use, and the machines they are meant for.

    `blip3o-grpo plan` shows where everything goes and what cannot fit.
    """

    address: str | None = None
    """Ray cluster to join: `HOST:PORT`, or `auto` for the one on this machine. None: the one that the variable
    `RAY_ADDRESS` names (Ray sets it in its jobs), else a cluster of the run's own, which only this machine can reach;
    another program's cluster is never joined by accident. `local`: always a cluster of its own."""
    trainers: int = Field(default=1, ge=1, le=4096)
    """Trainer ranks."""
    trainer_restarts: int = Field(default=3, ge=0)
    """How often all trainer ranks may be started again, from the newest checkpoint, because one of them died."""
    samplers: int = Field(default=1, ge=1, le=4096)
    """Workers that draw image tokens."""
    decoders: int = Field(default=1, ge=1, le=4096)
    """Workers that decode image tokens to images."""
    rewards: int = Field(default=1, ge=1, le=4096)
    """Replicas of every reward."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """CPU threads per worker; None: all cores divided by the stages that run at the same time, at least 1."""
    gpus_per_trainer: float = Field(default=0, ge=0, le=1)
    """GPUs of one worker: 1, or a share of one that other workers use too. Several trainer ranks have more than 0.5
    each, so that no two are on one GPU; all other workers with GPUs then share these. A sampler takes 90 % of a GPU of
    its own, and no more than that of its share of one."""
    gpus_per_sampler: float = Field(default=0, ge=0, le=1)
    """Likewise."""
    gpus_per_decoder: float = Field(default=0, ge=0, le=1)
    """Likewise."""
    gpus_per_reward: float = Field(default=0, ge=0, le=1)
    """Likewise, of every reward."""
    nodes: int = Field(default=1, ge=1)
    """Machines the Ray cluster must have; `run_dir`, policy and prompts must lie where all of them see them."""
    gpus_per_node: int | None = Field(default=None, ge=0)
    """None: as many as the run needs."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of one GPU (10^9 bytes): a run that needs more is refused. None: not checked; in `plan --card`, the
    card's."""
    weight_sync: Literal["auto", "object_store", "nccl", "ipc"] = "auto"
    """How a step's weights reach the samplers. `nccl`: from trainer rank 0's GPU to theirs. `ipc`: inside the one GPU
    that they share with the trainer; they sleep while it trains. `object_store`: through Ray, on any machine. `auto`:
    `nccl` or `ipc` where the placement allows it, else `object_store`."""

    @property
    def shares(self) -> dict[str, float]:
        """GPUs of one worker, by kind."""
        return {
            "trainer": self.gpus_per_trainer,
            "sampler": self.gpus_per_sampler,
            "decoder": self.gpus_per_decoder,
            "reward": self.gpus_per_reward,
        }
