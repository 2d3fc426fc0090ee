"""Where a run's workers go, what memory they need and how long stages take, known before anything starts."""

from blip3o_grpo.planning.plan import check_layout, check_placement, make_plan, show_plan

__all__ = ["check_layout", "check_placement", "make_plan", "show_plan"]
