"""How policies are named that are no folders; here so that policies need no pydantic to read a checkpoint."""

from __future__ import annotations

import re

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""`ORG/NAME` or `ORG/NAME@REVISION`: what `policy.path` means if there is no such folder."""
SHIPPED = ("tiny", "tiny_rough", "tiny_blip3o")
"""Policies that come with the project: `policies/NAME`."""
