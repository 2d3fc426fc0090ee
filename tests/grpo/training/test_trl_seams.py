"""The trainer starts without vLLM, which TRL would import."""

import subprocess
import sys


def test_a_trainer_does_not_import_vllm():
    code = "import sys, blip3o_grpo.rank; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
