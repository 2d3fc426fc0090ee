"""Made-up changes `section.key=value`: each is taken, or refused in one line; never a traceback.

The test stops making up examples after `SECONDS`; what it tried until then counts.
"""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.configs import DEFAULT_RECIPE, ConfigError, RunConfig, load_run_config

SECONDS = 8.0
sections = sorted(RunConfig.model_fields)
words = st.sampled_from(
    [*sections, "0", "1", "-1", "weight", "path", "max_steps", "options", "²", "٣", "", " ", "x" * 300]
)
keys = st.lists(words | st.text(max_size=4), min_size=1, max_size=4).map(".".join)
texts = st.sampled_from(
    ["", "null", "true", "1e999", ".inf", ".nan", "[", "{a: b}", "[1, 2]", "!!python/object:os.system x", "&a [*a]",
     "/dev/zero", "/proc/x", "1000000000000", "1e300", "\"\\ud83d\"", "7", "-0", "0x7", "2026-11-28", "'",
     "a: b: c", "\0", "\udcff", "~", "9" * 400, "*x", "<<: {}"]
)  # fmt: skip


def test_any_change_is_taken_or_refused_in_one_line():
    ends = time.monotonic() + SECONDS

    @settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.builds("{}={}".format, keys, texts | st.text(max_size=8)) | st.text(max_size=12), max_size=2))
    def tried(overrides):
        if time.monotonic() > ends:
            return
        try:
            load_run_config(DEFAULT_RECIPE, overrides)
        except ConfigError as error:
            assert str(error).strip()

    tried()
