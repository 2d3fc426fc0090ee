"""The Slurm example starts a head, joins the other nodes to it and trains there. Slurm and Ray are stand-ins."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples/slurm/train.sbatch"
TOOLS = {
    "scontrol": "printf 'node-a\\nnode-b\\nnode-c\\n'",
    "srun": 'while [[ "$1" == --* ]]; do options+="$1 "; shift; done; echo "$options| $*" >>"$LOG"; exec "$@"',
    "hostname": "echo 10.0.0.1 10.1.0.1",
    "ray": '[[ "$*" == *--head* ]] && echo up >head; [[ "$*" == *--address* ]] && echo up >rest; exec sleep 30',
    "blip3o-grpo": "exit 3",
    "python": '[[ "$2" == *secrets* ]] && echo token || echo $(( $(cat head rest 2>/dev/null | wc -l) * 2 - 1 ))',
}


def test_the_job_starts_ray_on_all_nodes_and_then_the_run(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_NNODES": "3",
        "SLURM_CPUS_PER_TASK": "96",
        "SLURM_GPUS_ON_NODE": "8",
    }
    command = ["bash", str(SCRIPT), "configs/blip3o_next_4nodes.yaml", "seed=1"]
    assert subprocess.run(command, env=environment, timeout=60).returncode == 3  # the run's own
    _, head, others, training = (tmp_path / "log").read_text().splitlines()
    resources = "--num-cpus 96 --num-gpus 8 --block --disable-usage-stats"
    assert "--nodelist=node-a" in head
    assert head.endswith(f"| ray start --head --node-ip-address 10.0.0.1 --port 6379 {resources}")
    assert "--nodes=2 --ntasks=2 --exclude=node-a" in others
    assert others.endswith(f"| ray start --address 10.0.0.1:6379 {resources}")
    assert training.endswith("| blip3o-grpo train configs/blip3o_next_4nodes.yaml seed=1 cluster.address=10.0.0.1:6379")
    assert (tmp_path / ".ray-token").stat().st_mode & 0o077 == 0
