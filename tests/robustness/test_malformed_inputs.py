"""Malformed inputs: none is accepted, none hangs, each ends in one sentence that names what is wrong.

The cases are in the `cases_*` modules. What hypothesis generates comes on top, in `test_generated_inputs.py`.
"""

import signal
from contextlib import contextmanager

import pytest

from tests.robustness import (
    cases_checkpoints,
    cases_configs,
    cases_files,
    cases_images,
    cases_prompts,
    cases_runs,
    cases_studies,
)

MODULES = (cases_configs, cases_studies, cases_prompts, cases_checkpoints, cases_images, cases_runs, cases_files)
CASES = [case for module in MODULES for case in module.CASES]
LIMIT_S = 120
"""For one case: a hang, not slowness, ends here."""
MET = set()


@contextmanager
def time_limit():
    def stop(*_):
        raise TimeoutError(f"no answer within {LIMIT_S} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_malformed_input_is_one_sentence(case, world):
    with time_limit():
        message = case.act(world)
    assert "Traceback" not in message
    for part in case.says:
        assert part in message, message
    MET.add(case.id)


def test_there_are_at_least_200(request):
    """Distinct ones, each met in this run; hypothesis's come on top."""
    asked = [item for item in request.session.items if item.originalname == "test_a_malformed_input_is_one_sentence"]
    if len(asked) < len(CASES):
        pytest.skip("only some of the cases were asked for")
    assert len(MET) == len(CASES) >= 200
