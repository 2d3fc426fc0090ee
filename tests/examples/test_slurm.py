"""The Slurm example starts a head, joins the other nodes to it and trains there. Slurm and Ray are stand-ins."""

import os
import signal
import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples/slurm/train.sbatch"
TOOLS = {
    "scontrol": "[ $1 = requeue ] && echo \"$@\" >requeued || printf 'node-a\\nnode-b\\nnode-c\\n'",
    "srun": 'while [[ "$1" == --* ]]; do options+="$1 "; shift; done; echo "$options| $*" >>"$LOG"; exec "$@"',
    "hostname": "echo 10.0.0.1 10.1.0.1",
    "ray": '[[ "$*" == *--head* ]] && echo up >head; [[ "$*" == *--address* ]] && echo up >rest; exec sleep 30',
    "blip3o-grpo": "exit 3",
    "python": '[[ "$2" == *secrets* ]] && echo token || echo $(( $(cat head rest 2>/dev/null | wc -l) * 2 - 1 ))',
}


def stand_ins(tmp_path, others=()):
    """Environment of a job whose tools are the stand-ins above, or `others`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (TOOLS | dict(others)).items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    return os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "17",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_NNODES": "3",
        "SLURM_CPUS_PER_TASK": "96",
        "SLURM_GPUS_ON_NODE": "8",
    }


def test_the_job_starts_ray_on_all_nodes_and_then_the_run(tmp_path):
    environment = stand_ins(tmp_path)
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


def test_a_job_that_runs_out_of_time_stops_its_run_and_is_queued_again(tmp_path):
    environment = stand_ins(tmp_path, {"blip3o-grpo": "trap 'exit 143' TERM; touch started; sleep 30 & wait"})
    with subprocess.Popen(["bash", str(SCRIPT), "recipe.yaml"], env=environment) as job:
        while not (tmp_path / "started").exists():
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=60) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
