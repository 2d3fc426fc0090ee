"""The section `policy`, of runs and of warm starts."""

from __future__ import annotations

from typing import Literal

from blip3o_grpo.configs.section import Section


class PolicySection(Section):
    """Which checkpoint to start from."""

    type: Literal["blip3o_next", "blip3o"] = "blip3o_next"
    """`blip3o_next`: image tokens that a diffusion head paints. `blip3o`: image features by flow matching, without
    tokens, of which only the head learns (`docs/blip3o.md`). A checkpoint of the other one is refused."""
    path: str = "tiny"
    """`tiny`, `tiny_rough` or `tiny_blip3o` (shipped with the project; the second's head has yet to learn, the third is
    a BLIP3-o), a folder in the released layout, or a repository on the Hugging Face hub: `ORG/NAME` or
    `ORG/NAME@REVISION`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What policies compute in; weights that learn stay in float32."""
