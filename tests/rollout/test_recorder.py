"""The recorder writes each group's best and worst image, and a repeated step replaces what it wrote before."""

import threading

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.rollout import Completion, Prompt, Rollout, RolloutBatch, RolloutGroup, RolloutRecorder, read_rollouts
from blip3o_grpo.rollout import recorder as recorder_module


def make_batch(*groups):
    """Groups given as (prompt id, rewards of the members); member k's image has brightness k."""
    return RolloutBatch(
        tuple(
            RolloutGroup(
                Prompt(name, f"ein Schild „{name}“", {"target_text": name}),
                [1, 2],
                tuple(
                    Rollout(
                        Completion(np.zeros(4, np.int32), np.full(4, -0.5, np.float32), 3, member),
                        np.full((8, 8, 3), member, np.uint8),
                        rewards,
                    )
                    for member, rewards in enumerate(members)
                ),
            )
            for name, members in groups
        ),
        {"wall": 1.0},
    )


def test_best_and_worst_are_recorded(tmp_path):
    members = [{"ocr": 0.5, "guard": 0.0}, {"ocr": 0.9, "guard": None}, {"ocr": 0.0, "guard": 0.2}]
    RolloutRecorder(tmp_path).record(12, make_batch(("Müller", members)))
    (record,) = read_rollouts(tmp_path)
    assert (record["step"], record["prompt_id"], record["policy_version"]) == (12, "Müller", 3)
    assert record["prompt"] == "ein Schild „Müller“" and record["metadata"] == {"target_text": "Müller"}
    assert [rollout["rewards"] for rollout in record["rollouts"]] == members
    assert record["rollouts"][1] == {"seed": 1, "logprob": -2.0, "rewards": members[1]}
    assert (record["best"]["member"], record["worst"]["member"]) == (1, 2)
    for kind in ("best", "worst"):
        assert np.asarray(Image.open(record[kind]["image"])).max() == record[kind]["member"]


def test_weights_decide_what_is_best(tmp_path):
    members = [{"ocr": 0.5, "guard": 1.0}, {"ocr": 0.6, "guard": 0.0}]
    RolloutRecorder(tmp_path, {"guard": 0.0}).record(1, make_batch(("p", members)))
    assert read_rollouts(tmp_path)[0]["best"]["member"] == 1


def test_repeated_step_replaces_and_others_stay(tmp_path):
    recorder = RolloutRecorder(tmp_path)
    recorder.record(1, make_batch(("a", [{"r": 0.0}])))
    recorder.record(2, make_batch(("b", [{"r": 0.0}]), ("c", [{"r": 0.0}])))
    RolloutRecorder(tmp_path).record(2, make_batch(("b", [{"r": 1.0}])))
    recorder.record("eval", make_batch(("a", [{"r": 0.0}])))
    assert [(record["step"], record["prompt_id"]) for record in read_rollouts(tmp_path)] == [
        (1, "a"),
        (2, "b"),
        ("eval", "a"),
    ]
    assert read_rollouts(tmp_path)[1]["rollouts"][0]["rewards"] == {"r": 1.0}


def test_half_written_step_is_not_read(tmp_path):
    (tmp_path / "rollouts" / ".step-000003").mkdir(parents=True)
    (tmp_path / "rollouts" / ".step-000003" / "rollouts.jsonl").write_text("{")
    assert read_rollouts(tmp_path) == []
    RolloutRecorder(tmp_path).record(3, make_batch(("a", [{"r": 0.0}])))
    assert len(read_rollouts(tmp_path)) == 1


def test_all_images_can_be_kept(tmp_path):
    members = [{"r": 0.5}, {"r": 0.9}, {"r": 0.0}]
    RolloutRecorder(tmp_path, all_images=True).record(0, make_batch(("a", members), ("b", members[:2])))
    first, second = read_rollouts(tmp_path)
    assert [np.asarray(Image.open(image)).max() for image in first["images"]] == [0, 1, 2]
    assert first["best"] == {"member": 1, "image": first["images"][1]}
    assert first["worst"] == {"member": 2, "image": first["images"][2]}
    assert len(second["images"]) == 2
    assert len(list((tmp_path / "rollouts/step-000000").glob("*.png"))) == 5  # none twice


def test_the_step_goes_on_while_its_pictures_are_encoded_and_nothing_is_lost(tmp_path, monkeypatch):
    """One step is being written at most: the next one waits for it, and `wait` for the last."""
    may_go_on, encode = threading.Event(), recorder_module._png

    def slow(image):
        assert may_go_on.wait(20)
        return encode(image)

    monkeypatch.setattr(recorder_module, "_png", slow)
    recorder = RolloutRecorder(tmp_path)
    recorder.write(1, recorder.pick(1, make_batch(("a", [{"r": 0.0}, {"r": 1.0}]))))
    assert not list(tmp_path.glob("rollouts/step-*"))
    threading.Timer(0.2, may_go_on.set).start()
    recorder.write(2, recorder.pick(2, make_batch(("b", [{"r": 0.0}]))))
    assert (tmp_path / "rollouts" / "step-000001" / "000-best.png").is_file()
    assert recorder.wait() == tmp_path / "rollouts" / "step-000002" and recorder.wait() is None
    assert [record["step"] for record in read_rollouts(tmp_path)] == [1, 2]


def test_what_could_not_be_written_is_said_when_it_is_waited_for(tmp_path):
    recorder = RolloutRecorder(tmp_path)
    (tmp_path / "rollouts").write_text("no folder")
    recorder.write(1, recorder.pick(1, make_batch(("a", [{"r": 0.0}]))))
    with pytest.raises(OSError):
        recorder.wait()
