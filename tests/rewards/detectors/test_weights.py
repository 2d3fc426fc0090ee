"""mmdet checkpoints load without running pickled code, and only those of the right network are accepted."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.detectors.mask2former_weights import load_mmdet_weights, to_transformers

SCRIPT = Path(__file__).parents[3] / "scripts" / "convert_mmdet_mask2former.py"


class Prank:
    """Pickled code that leaves a trace when it runs."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_log_history_beside_the_weights_is_skipped(tmp_path):
    """What mmengine's runner saves beside the weights, written by numpy 2 and as numpy 1 would name it."""
    logs = pytest.importorskip("mmengine.logging", reason="mmengine, whose log history is saved, is not installed")

    history = {
        "train/lr": logs.HistoryBuffer([0.1, 0.2], [1, 1]),
        "train/loss": logs.HistoryBuffer([1, 2], [1, 1]),
    }
    hub = {"log_scalars": history, "runtime_info": {"iter": np.int64(3), "loss": np.float64(0.5)}, "resumed_keys": {}}
    path = tmp_path / "new.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "message_hub": hub, "meta": {"epoch": 1}}, path)
    older = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(older, "w") as target:
        for entry in source.infolist():
            target.writestr(entry, source.read(entry).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    for file in (path, older):
        assert torch.equal(load_mmdet_weights(file)["a"], torch.ones(2))


def test_pickled_code_is_refused(tmp_path):
    path = tmp_path / "prank.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Prank(tmp_path / "trace")}, path)
    with pytest.raises(RewardError, match="cannot be read"):
        load_mmdet_weights(path)
    assert not (tmp_path / "trace").exists()


def test_names_of_mmdet_2_become_those_of_mmdet_3(tmp_path):
    older = {
        "panoptic_head.pixel_decoder.encoder.layers.0.attentions.0.value_proj.weight": "self_attn.value_proj.weight",
        "panoptic_head.pixel_decoder.encoder.layers.5.ffns.0.layers.1.bias": "ffn.layers.1.bias",
        "panoptic_head.transformer_decoder.layers.8.attentions.0.attn.in_proj_bias": "cross_attn.attn.in_proj_bias",
        "panoptic_head.transformer_decoder.layers.8.attentions.1.attn.in_proj_bias": "self_attn.attn.in_proj_bias",
        "backbone.stages.0.blocks.0.ffn.layers.1.bias": "backbone.stages.0.blocks.0.ffn.layers.1.bias",
    }
    torch.save({"state_dict": {name: torch.zeros(1) for name in older}}, tmp_path / "old.pth")
    for name, expected in zip(load_mmdet_weights(tmp_path / "old.pth"), older.values(), strict=True):
        assert name.endswith(expected) and "attentions" not in name and "ffns" not in name


def test_checkpoints_of_other_kinds_are_named(tmp_path):
    with pytest.raises(RewardError, match="does not exist"):
        load_mmdet_weights(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RewardError, match="no 'state_dict'"):
        load_mmdet_weights(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    with pytest.raises(RewardError, match="cannot be read"):
        load_mmdet_weights(tmp_path / "text.pth")
    with pytest.raises(RewardError, match="bbox_head.fc.weight"):
        to_transformers({"bbox_head.fc.weight": torch.zeros(1)})
    with pytest.raises(RewardError, match="Swin"):
        to_transformers({"backbone.layer1.0.conv1.weight": torch.zeros(1)})


def test_the_script_refuses_a_checkpoint_with_parts_missing(tmp_path):
    torch.save({"state_dict": {"panoptic_head.query_feat.weight": torch.zeros(100, 256)}}, tmp_path / "part.pth")
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path / "part.pth"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "it lacks" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
