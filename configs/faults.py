"""The section `faults`: how often work is repeated when workers die or hang, and how long it may take at all."""

from __future__ import annotations

from pydantic import Field

from blip3o_grpo.configs.section import Section


class TimeoutsSection(Section):
    """Seconds one call may take inside its worker; time in a worker's queue does not count. None: no limit.

    The defaults are far above what healthy runs need: a limit is there for what would never end.
    """

    start: float | None = Field(default=3600, gt=0)
    """Loading the models; also how long a worker whose process or node is gone may take to come back."""
    sample: float | None = Field(default=1800, gt=0)
    """One chunk (`rollout.prompts_per_chunk`)."""
    decode: float | None = Field(default=1800, gt=0)
    """One batch (`rollout.images_per_decode`)."""
    score: float | None = Field(default=1800, gt=0)
    """One batch as decoded, by one reward; also a reward's look at the starting policy's images."""
    sync: float | None = Field(default=1800, gt=0)
    """Fetching and loading the newest weights, or a reward's state."""


class FaultsSection(Section):
    """What happens when a worker's process dies or hangs: Ray starts it again, and its work is repeated.

    The bound is per call, not per run: a run of days may lose any number of workers.
    """

    retries: int = Field(default=3, ge=0)
    """How often a call is repeated that was running when its worker died or was replaced; then the run stops, or the
    groups are dropped (`on_error: skip`)."""
    backoff_s: float = Field(default=1.0, ge=0)
    """Wait before the first repetition; doubles with each."""
    timeout_s: TimeoutsSection = TimeoutsSection()
