"""One trainer rank of `test_ranks.py`, started by it: `rank.py CONFIG [DROPPED ...]`, with torch's RANK, ... set.

`DROPPED` are ids of prompts whose groups are dropped.

Groups come from the in-process stand-in of `toy_pipeline.py`; rank 0 passes on the weights it was given. accelerate
shards on accelerators only, so for FSDP2 on CPUs this process tells it otherwise; what shards and gathers is as on
GPUs.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from blip3o_grpo.configs import load_run_config
from blip3o_grpo.rank import run_training
from blip3o_grpo.rollout import load_prompts
from blip3o_grpo.run.folder import RunFolder
from tests.grpo.toy_pipeline import FakePipeline


def shard_on_cpus() -> None:
    """Have accelerate take a CPU process group for one it can shard over."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        if getattr(self, "fsdp_plugin", None) is not None:
            self.distributed_type = DistributedType.FSDP  # again each time: all states share what one of them resets

    AcceleratorState.__init__ = init


def main(config_file: str, *drop: str) -> None:
    """Train, and leave rank 0's view of the trained weights in `RUN/state.pt`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    shard_on_cpus()

    class SharedPipeline(FakePipeline):
        """All ranks draw with the weights that rank 0 published; each draws as often as it likes in a step."""

        step = 0

        def collect(self, *args, step, **kwargs):
            if step != self.step:
                news = [self.version, self.ar.state_dict()] if torch.distributed.get_rank() == 0 else [None, None]
                torch.distributed.broadcast_object_list(news, src=0)
                self.step, (self.version, weights) = step, news
                self.ar.load_state_dict(weights)
            return super().collect(*args, step=step, **kwargs)

    config = load_run_config(config_file)
    prompts = load_prompts(config.prompts.train)
    trainer = run_training(config, prompts, prompts, SharedPipeline(config.policy.path, config, drop=drop))
    trainer.sync_evaluated_weights()
    if trainer.accelerator.is_main_process:
        torch.save(trainer.pipeline.ar.state_dict(), RunFolder(config.run_dir).path / "state.pt")
    local = sum(p.numel() for p in map(to_local, trainer.model.parameters()))
    rank, engine = trainer.accelerator.process_index, trainer.model_wrapped
    stage = getattr(engine, "zero_optimization_stage", lambda: "")()
    (RunFolder(config.run_dir).path / f"values-{rank}").write_text(str(local))
    (RunFolder(config.run_dir).path / f"engine-{rank}").write_text(f"{type(engine).__name__} {stage}")
    torch.distributed.destroy_process_group()


def to_local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a parameter under FSDP2, DeepSpeed's ZeRO-3, or none of them."""
    if hasattr(tensor, "ds_tensor"):
        return tensor.ds_tensor
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


if __name__ == "__main__":
    main(*sys.argv[1:])
