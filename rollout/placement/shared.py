"""GPUs that hold a trainer rank each and other workers beside it, by Ray's placement groups.

Ray Train makes a group of its own when training starts, long after samplers and decoders, and takes none that is there.
So a group of stand-ins holds the ranks' shares first: more than half of a GPU each, so that no two are on one. What is
left of these GPUs is reserved whole for the other workers, a bundle for each GPU; Ray fills GPUs that are begun first.
When training starts the stand-ins go, and Ray Train finds gaps of just its ranks' size, again one per GPU; ranks that
are started again find the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from blip3o_grpo.configs import RunConfig
from blip3o_grpo.rollout.placement.gpus import num_workers
from blip3o_grpo.rollout.placement.resources import WorkerResources
from blip3o_grpo.rollout.types import RolloutError

PATIENCE_S = 60.0
"""For Ray to reserve what its nodes have; longer, another program has it."""
DIGITS = 4
"""Of a share: Ray counts in ten thousandths."""
STAGES = {"sampler": "sample", "decoder": "decode", "reward": "score"}


class SharedGpus:
    """The reserved GPUs of a run whose trainer ranks share theirs (`gpus.ranks_share`).

    Args:
        config: of the run; its placement was checked.
        plan: resources per stage; CPUs of a worker on such a GPU are reserved with it.

    Raises:
        RolloutError: the GPUs are not free.
    """

    def __init__(self, config: RunConfig, plan: Mapping[str, WorkerResources]):
        share = config.cluster.gpus_per_trainer
        self._given: Counter[str] = Counter()
        self._num = config.cluster.trainers
        self._stand_ins = self._reserve([{"GPU": share}] * self._num)
        cpus = cpus_beside_ranks(config, plan)
        self._rest = self._reserve([{"GPU": round(1 - share, DIGITS)} | cpu for cpu in cpus])

    def _reserve(self, bundles: list[dict[str, float]]) -> PlacementGroup:
        group = placement_group(bundles, strategy="PACK")
        if not group.wait(PATIENCE_S):
            remove_placement_group(group)
            raise RolloutError(
                f"the Ray cluster did not reserve {self._num} GPUs for trainer ranks and what shares them within "
                f"{PATIENCE_S:g} s: another program of the cluster has them, or its CPUs"
            )
        return group

    def next(self, stage: str) -> PlacementGroupSchedulingStrategy:
        """Where the next worker of a stage (a key of the plan) goes: to the GPUs in turn."""
        bundle = self._given[stage] % self._num
        self._given[stage] += 1
        return PlacementGroupSchedulingStrategy(self._rest, placement_group_bundle_index=bundle)

    def leave_to_ranks(self) -> None:
        """Make room for Ray Train's own group."""
        remove_placement_group(self._stand_ins)

    def close(self) -> None:
        """Give back all that is reserved."""
        self.leave_to_ranks()
        remove_placement_group(self._rest)


def cpus_beside_ranks(config: RunConfig, plan: Mapping[str, WorkerResources]) -> list[dict[str, float]]:
    """Resource `CPU` that the other workers of each shared GPU reserve; none where they reserve none."""
    counts, shares, num = num_workers(config), config.cluster.shares, config.cluster.trainers
    found = []
    for gpu in range(num):
        cpus = sum(
            plan[stage].num_cpus * len(range(gpu, counts[kind], num)) for kind, stage in STAGES.items() if shares[kind]
        )
        found.append({"CPU": cpus} if cpus else {})
    return found
