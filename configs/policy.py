"""The section `policy`, of runs and of warm starts."""

from __future__ import annotations

from typing import Literal

from blip3o_grpo.configs.section import Section


class PolicySection(Section):
    """Which BLIP3o-NEXT checkpoint to start from."""

    path: str = "tiny"
    """`tiny` or `tiny_rough` (shipped with the project; the second's head has yet to learn), a folder in the released
    layout, or a repository on the Hugging Face hub: `ORG/NAME` or `ORG/NAME@REVISION`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What policies compute in; weights that learn stay in float32."""
