"""Runs become clusters of the simulation, constants are found again, and measured step times are predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.configs import ConfigError, load_run_config
from blip3o_grpo.planning.times import StageTimes, calls_of_step, predict
from blip3o_grpo.planning.tune import with_cluster
from blip3o_grpo.policies.blip3o_next.released import write_configs
from blip3o_grpo.run.folder import RunFolder
from scripts.cluster_compare import compare, comparison_lines, simulate_cores
from scripts.cluster_events import Costs, Simulation
from scripts.cluster_layout import (
    Links,
    Shapes,
    check_co_located,
    co_located,
    divide,
    divide_co_located,
    on_cores,
    on_gpus,
)
from scripts.cluster_scale import grown, halves, smaller_calls
from scripts.simulate_cluster import main

ROOT = Path(__file__).parents[2]
WITHIN = 0.15
TIMES = StageTimes({}, "gpu", "bfloat16", 0.02, 0.01, 0.1, 0.4, 0.05, "made up", sample_call=64 * 0.02)
SHAPES = Shapes(sample=0.0, weights=10**9, num_tokens=729, pixels=1024**2)
EIGHT = {"trainers": 4, "samplers": 2, "decoders": 2, "gpus_per_node": 8} | {
    f"gpus_per_{kind}": 1 for kind in ("trainer", "sampler", "decoder")
}


def tiny(*overrides):
    return load_run_config(ROOT / "configs/tiny_ocr.yaml", overrides)


def images_of(ranks):
    return [[[part.images for part in chunk.parts] for chunk in rank] for rank in ranks]


def test_a_step_is_divided_as_the_flow_divides_it():
    """16 prompts of 8 images: chunks of 4 groups, parts of 2; the workers of a pool are taken in turn."""
    (rank,) = divide(tiny())
    assert images_of([rank]) == [[[16, 16]] * 4]
    assert [chunk.turn for chunk in rank] == [0, 1, 2, 3]
    assert [part.turn for chunk in rank for part in chunk.parts] == list(range(8))
    two = divide(tiny("cluster.trainers=2", "rollout.prompts_per_chunk=3"))
    assert images_of(two) == [[[16, 8], [16, 8], [16]]] * 2
    assert [[chunk.turn for chunk in rank] for rank in two] == [[0, 1, 2], [3, 4, 5]]
    many = divide(tiny("cluster.samplers=16"))
    assert images_of(many) == [[[8]] * 16]  # a chunk is no more than a sampler's share


def test_workers_on_cores_have_the_threads_that_a_run_gives_them():
    crowded = on_cores(tiny(), Costs(1, 1, {}, 1), 2)
    assert {worker.threads for worker in (*crowded.samplers, *crowded.decoders)} == {1}
    assert crowded.trainers[0].threads == len(crowded.rewards["guard"]) == 2
    roomy = on_cores(tiny("cluster.samplers=1", "rollout.prompts_per_chunk=16"), Costs(1, 1, {}, 1), 8)
    assert roomy.samplers[0].threads == 8


def write_run(folder, config, outcome, steps=4):
    """A finished run with a simulated one's times."""
    run = RunFolder(folder)
    run.prepare(config.model_copy(update={"run_dir": str(folder)}))
    times = {f"time/{stage}": seconds for stage, seconds in outcome.busy_s.items() if stage != "train"}
    times |= {"time/rollout": outcome.rollout_s, "time/train": outcome.train_s, "time/step": outcome.step_s}
    run.metrics.write_text("".join(json.dumps({"step": step, **times}) + "\n" for step in range(1, steps + 1)))
    return run.path


COSTS = Costs(0.03, 0.08, {"ocr": 0.05, "guard": 0.002}, 0.04, collect_s=0.5)


@pytest.fixture
def runs(tmp_path):
    """One and two workers a stage, with the times that two cores would need."""
    configs = {n: tiny(f"cluster.samplers={n}", f"cluster.decoders={n}", f"cluster.rewards={n}") for n in (1, 2)}
    return [write_run(tmp_path / f"{n}", config, simulate_cores(config, COSTS, 2)) for n, config in configs.items()]


@pytest.mark.parametrize("first", [0, 1])
def test_costs_fitted_to_one_run_predict_the_other(runs, first):
    rows = compare([runs[first], runs[1 - first]], cores=2)
    assert [row["fitted"] for row in rows] == [True, False]
    for row in rows:
        for name, seconds in row["seconds"].items():
            assert seconds["predicted"] == pytest.approx(seconds["measured"], rel=0.01), name
    lines = comparison_lines(rows)
    assert "1 trainers, 1 samplers" in lines[2 if first == 0 else 9] and "constants fitted to it" in lines[2]


def test_what_cannot_be_compared_is_one_line(runs, tmp_path, capsys, monkeypatch):
    other = tiny("rollout.num_diffusion_steps=8")
    steps = write_run(tmp_path / "steps", other, simulate_cores(other, COSTS, 2))
    with pytest.raises(ConfigError, match="its section rollout is not that of"):
        compare([runs[0], steps], cores=2)
    short = write_run(tmp_path / "short", tiny(), simulate_cores(tiny(), COSTS, 2), steps=2)
    with pytest.raises(ConfigError, match="at least 3 steps are needed"):
        compare([short], cores=2)
    old = write_run(tmp_path / "old", tiny(), simulate_cores(tiny(), COSTS, 2))
    metrics = old / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("time/score/guard", "time/other"))
    with pytest.raises(ConfigError, match="no time/score/guard; the run is of an older version"):
        compare([old], cores=2)
    twice = tiny("trainer.num_iterations=2", "checkpoint.every_steps=20")
    with pytest.raises(ConfigError, match="trainer.num_iterations=2: one update a batch is simulated"):
        compare([write_run(tmp_path / "twice", twice, simulate_cores(twice, COSTS, 2))], cores=2)
    monkeypatch.setattr(sys, "argv", ["simulate_cluster.py", "compare", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert (
        left.value.code == 2
        and said.startswith(f"error: {tmp_path / 'nothing'}: no run folder")
        and said.count("\n") == 1
    )


def ocr(**cluster):
    config = load_run_config(ROOT / "configs/blip3o_next_ocr.yaml", ["rollout.images_per_decode=32"])
    return with_cluster(config, EIGHT | cluster)


def test_workers_on_gpus_are_where_the_plan_puts_them():
    """16 GPUs of two nodes: 2 samplers and 6 decoders fill the first, 8 ranks the second."""
    config = ocr(trainers=8, decoders=6, nodes=2)
    cluster = on_gpus(config, TIMES, SHAPES, Links())
    assert {worker.node for worker in (*cluster.samplers, *cluster.decoders)} == {0}
    assert {worker.node for worker in cluster.trainers} == {1}
    assert len({worker.device for worker in (*cluster.samplers, *cluster.decoders, *cluster.trainers)}) == 16
    assert [worker.node for worker in cluster.rewards["ocr"]] == [0] * 4 + [1] * 4
    assert cluster.costs.decode == pytest.approx(0.1 + 30 * 0.01)
    assert cluster.costs.score == {"ocr": 0.4, "guard": 0.0}
    assert cluster.costs.after_s == pytest.approx(4 * 16 * Links().signals_s)  # a rank's own pictures
    assert cluster.costs.record_s == pytest.approx(32 * 2 * Links().png_s / 4)  # those of all ranks, by four threads


def test_weights_take_the_way_of_the_run():
    """Samplers by NCCL, decoders by the object store; all by the store where a recipe says so."""
    links = Links()
    near = on_gpus(ocr(), TIMES, SHAPES, links).sync
    assert near.store_bytes == 2e9 and len(near.fetchers) == 2
    assert near.transfer_s == pytest.approx(2e9 / links.nvlink)
    far = on_gpus(ocr(trainers=8, decoders=6, nodes=2), TIMES, SHAPES, links).sync
    assert far.transfer_s == pytest.approx(2e9 / links.network)
    stored = on_gpus(ocr(weight_sync="object_store"), TIMES, SHAPES, links).sync
    assert stored.transfer_s == 0 and len(stored.fetchers) == 4
    joined = on_gpus(ocr(), TIMES, SHAPES, links, decoders_join=True).sync
    assert joined.fetchers == () and joined.transfer_s == near.transfer_s


def test_parts_can_be_scored_in_pieces():
    """16 images in pieces of 6, each by the next worker."""
    (rank,) = divide(tiny(), images_per_score=6)
    first, second = rank[0].parts
    assert [(piece.images, piece.turn) for piece in first.pieces] == [(6, 0), (6, 1), (4, 2)]
    assert [piece.turn for piece in second.pieces] == [3, 4, 5]
    alone = divide_co_located(ocr(trainers=16, samplers=16, decoders=16), replicas=32, images_per_score=8)[3]
    assert [(piece.images, piece.turn) for piece in alone[0].parts[0].pieces] == [(8, 6), (8, 7), (8, 6), (8, 7)]


def test_co_located_gpus_do_their_own_share_of_every_stage():
    """16 GPUs of two nodes: 2 prompts of 16 images each in one call and one part; nothing leaves its node."""
    config = ocr(trainers=16, samplers=16, decoders=16, rewards=32)
    cluster = co_located(config, TIMES, SHAPES, Links(), 16)
    work = divide_co_located(config, replicas=32)
    assert images_of(work) == [[[32]]] * 16
    outcome = Simulation(cluster, work).run()
    assert outcome.store_bytes == 0
    assert outcome.busy_s["sample"] == pytest.approx(16 * TIMES.sample_call)
    assert outcome.busy_s["decode"] == pytest.approx(512 * 0.4)
    chain = TIMES.sample_call + 32 * (0.4 + 0.4 + 0.05)  # drawn, decoded, read, learnt from
    assert outcome.step_s == pytest.approx(chain + outcome.sync_s, rel=0.05)


def test_roles_that_one_gpu_cannot_hold_are_refused(tmp_path):
    write_configs(tmp_path, 1)
    check_co_located(ocr(), tmp_path, 141)
    with pytest.raises(ConfigError, match="a GPU of 20 GB cannot hold all roles at once: trainer"):
        check_co_located(ocr(), tmp_path, 20)


def test_a_grown_batch_keeps_the_images_of_a_gpu():
    assert grown(ocr(), 64, 8).rollout.prompts_per_step == 256


def test_the_recipe_is_predicted_in_all_ways(tmp_path):
    """Separate pools never beat what their busiest pool needs; one step off-policy is no slower than in step."""
    command = [sys.executable, str(ROOT / "scripts/simulate_cluster.py"), "scale", "blip3o_next_ocr", "--gpus", "8"]
    made = subprocess.run([*command, "--json", str(tmp_path / "rows.json")], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["mode"] for row in rows] == [
        "separate",
        "separate, one step off-policy",
        "every GPU in every role",
        "every GPU in every role, its own prompts",
    ]
    separate, stale, shared, turns = rows
    assert stale["step_s"] < separate["step_s"] and turns["step_s"] < shared["step_s"] < separate["step_s"]
    assert all(0 < share <= 1.0001 for row in rows for share in row["busy"].values())
    assert all(row["images_per_s"] == pytest.approx(512 / row["step_s"]) for row in rows)
    assert made.stdout.count("\n") == 2 + 4


@pytest.mark.parametrize("gpus", ["eight", "8,2", "8,", "-8"])
def test_numbers_of_gpus_are_checked_first(monkeypatch, capsys, gpus):
    monkeypatch.setattr(sys, "argv", ["simulate_cluster.py", "scale", "blip3o_next_ocr", f"--gpus={gpus}"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and said == (
        f"error: --gpus {gpus}: give numbers of GPUs with commas, each 3 or more, as 8,64\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scale", "tiny_both"], "rollout.noises_per_completion=4: one image a completion is simulated"),
        (["scale", "tiny_ocr", "learn=[head]", "head.credit=shared"], "learn: head: learning tokens are simulated"),
        (["scale", "tiny_ocr", "rollout.subset_size=4"], "rollout.subset_size: steps that learn from all"),
        (["scale", "tiny_blip3o"], "policy.type=blip3o: simulate_cluster.py knows policies of image tokens only"),
        (["scale", "tiny_ocr", "policy.path=no/such"], "no/such"),
        (["scale", "tiny_ocr", "--batch", "grown", "--base", "0"], "--base 0: give 1 or more"),
        (["scale", "tiny_ocr", "--batch", "grown", "--base", "999", "--gpus", "3"], "--base 999: rollout.prompts_per"),
        (["scale", "tiny_ocr", "--images-per-score", "-1"], "--images-per-score -1: give 1 or more"),
        (["compare", "runs", "--cores", "0"], "--cores 0: give 1 or more"),
    ],
)
def test_what_is_not_simulated_is_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["simulate_cluster.py", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == 2 and message in told and told.count("\n") == 1


def test_plan_counts_the_calls_that_are_simulated():
    """So that both say that workers beyond them idle, and that ranks and samplers make engine calls smaller."""
    for changes in ([], ["cluster.trainers=2", "rollout.prompts_per_chunk=3"], ["cluster.samplers=16"]):
        ranks = divide(tiny(*changes))
        calls = sum(map(len, ranks)), sum(len(chunk.parts) for rank in ranks for chunk in rank)
        assert calls_of_step(tiny(*changes)) == calls
    eight, enough, idle = (predict(ocr(decoders=count, gpus_per_node=60), TIMES)["decode"] for count in (8, 16, 50))
    assert idle == enough == eight / 2  # 4 ranks x 2 chunks x 2 parts


def test_smaller_calls_are_tried_down_to_one_group():
    """The recipe has chunks of 4 groups, and parts of 32 images, which are two."""
    assert halves(6) == [6, 3, 1]
    tried = [(c.rollout.prompts_per_chunk, c.rollout.images_per_decode) for c in smaller_calls(ocr(), True)]
    assert tried == [(4, 32), (4, 16), (2, 32), (2, 16), (1, 32), (1, 16)]
    assert [c.rollout for c in smaller_calls(ocr(), False)] == [ocr().rollout]


@pytest.mark.slow
def test_the_step_time_of_the_tiny_recipe_is_predicted(tmp_path):
    """One and two workers a stage, eight steps each on this machine; either run predicts the other within 15 %."""
    runs = []
    for count in (1, 2):
        folder = tmp_path / f"workers-{count}"
        settings = {
            "run_dir": folder,
            "cluster.samplers": count,
            "cluster.decoders": count,
            "cluster.rewards": count,
            "trainer.max_steps": 8,
            "evaluation.num_prompts": 2,
            "evaluation.images_per_prompt": 4,
            "evaluation.every_steps": 0,
        }
        command = [sys.executable, "-m", "blip3o_grpo.cli", "train", "tiny_ocr"]
        arguments = [f"{key}={value}" for key, value in settings.items()]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        runs.append(folder)
    cores = len(os.sched_getaffinity(0))
    for order in (runs, runs[::-1]):
        rows = compare(order, cores)
        sys.stdout.write("\n".join(comparison_lines(rows)) + "\n")
        for row in rows:
            assert abs(row["seconds"]["step"]["difference"]) < WITHIN, row
