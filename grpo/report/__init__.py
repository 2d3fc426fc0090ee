"""The report of a run: one HTML file that needs nothing beside it."""

from blip3o_grpo.report.build import write_report

__all__ = ["write_report"]
