"""How a policy on the Hugging Face hub is named; here so that policies need no pydantic to read a checkpoint."""

from __future__ import annotations

import re

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""`ORG/NAME` or `ORG/NAME@REVISION`: what `policy.path` means if there is no such folder."""
