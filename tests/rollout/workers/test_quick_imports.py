"""Imports cost less, and the process is afterwards as it was."""

import gc
import importlib.metadata

import pytest

from blip3o_grpo.rollout.workers.quick_imports import quick_imports


def test_the_process_is_afterwards_as_it_was():
    asked = importlib.metadata.packages_distributions
    with pytest.raises(ImportError), quick_imports():
        assert not gc.isenabled()
        table = importlib.metadata.packages_distributions()
        assert table is importlib.metadata.packages_distributions() and "ray" in table
        raise ImportError
    assert gc.isenabled() and importlib.metadata.packages_distributions is asked
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()  # whoever has it off keeps it off
    gc.enable()
