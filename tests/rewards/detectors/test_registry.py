"""Detectors are found by name without loading any model library, and wrong options are refused before a model loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blip3o_grpo.rewards import RewardError
from blip3o_grpo.rewards.detectors import DETECTORS, build_detector, detector_class
from blip3o_grpo.rewards.detectors.coco import CATEGORY_IDS, COCO_NAMES, GENEVAL_NAMES


def test_every_name_leads_to_a_class_without_a_model_library():
    code = (
        "import sys; from blip3o_grpo.rewards.detectors import DETECTORS, detector_class;"
        "assert all(detector_class(name).class_names for name in DETECTORS);"
        "loaded = {'torch', 'mmdet', 'mmcv', 'mmengine', 'transformers', 'open_clip'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert set(DETECTORS) == {"mmdet", "transformers", "ssd", "shapes"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mmdett", {}, "did you mean 'mmdet'"),
        ("yolo", {}, "known detectors: mmdet"),
        ("mmdet", {}, "checkpoint"),
        ("mmdet", {"chekpoint": "a"}, "did you mean 'checkpoint'"),
        ("mmdet", {"checkpoint": "/does/not/exist.pth"}, "'/does/not/exist.pth' does not exist"),
        ("mmdet", {"checkpoint": "a", "device": "gpu"}, "'cpu', 'cuda'"),
        ("mmdet", {"checkpoint": "a", "image_sides": [200, 333]}, "longer first"),
        ("mmdet", {"checkpoint": "a", "image_sides": 333}, "wrong type"),
        ("transformers", {"folder": "/does/not/exist"}, "no model folder"),
        ("transformers", {"folder": "a", "device": "cuda:x"}, "'cpu', 'cuda'"),
        ("ssd", {"device": "cuda"}, "detector ssd"),
    ],
)
def test_bad_options_are_refused_before_a_model_loads(name, options, message):
    with pytest.raises(RewardError, match=message):
        build_detector(name, **options)


def test_a_gpu_that_is_not_there_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RewardError, match="no weights"):
        build_detector("transformers", folder=str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(RewardError, match="'cuda:99'.*GPUs"):
        build_detector("transformers", folder=str(tmp_path), device="cuda:99")


def test_class_names_are_cocos_in_genevals_words():
    assert len(COCO_NAMES) == len(set(GENEVAL_NAMES)) == len(CATEGORY_IDS) == 80
    assert [name for name in GENEVAL_NAMES if name not in COCO_NAMES] == [
        "computer mouse",
        "tv remote",
        "computer keyboard",
    ]
    assert (GENEVAL_NAMES[0], GENEVAL_NAMES[79]) == ("person", "toothbrush")
    assert dict(zip(CATEGORY_IDS, GENEVAL_NAMES, strict=True))[74] == "computer mouse"
    assert dict(zip(CATEGORY_IDS, GENEVAL_NAMES, strict=True))[90] == "toothbrush"
    for name in ("mmdet", "transformers", "ssd"):
        assert detector_class(name).class_names == GENEVAL_NAMES


def test_class_names_are_in_the_order_of_mmdets_labels():
    import re
    from importlib.util import find_spec

    if find_spec("mmdet") is None:
        pytest.skip("mmdet, whose labels are compared, is not installed")
    source = Path(find_spec("mmdet").submodule_search_locations[0], "datasets", "coco.py").read_text()
    listed = re.search(r"'classes':\s*\((.*?)\)", source, re.DOTALL)[1]
    assert tuple(re.findall(r"'([^']+)'", listed)) == COCO_NAMES
