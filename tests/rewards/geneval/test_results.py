"""GenEval's result files: what the official scripts read, and that nothing but older results is replaced."""

import json

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards.geneval.results import check_results_path, image_folder, write_results
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

RECORD = {"tag": "counting", "include": [{"class": "dog", "count": 2}]}


def scored(prompt, metadata, scores):
    images = [np.full((4, 6, 3), 40 * member, np.uint8) for member in range(len(scores))]
    found = [{"reason": "" if score == 1 else "too few", "found": {"dog": score}} for score in scores]
    return ScoredPrompt(prompt, metadata, images, scores, found)


@pytest.fixture
def results(tmp_path):
    """Results of two prompts with three images."""
    path = tmp_path / "run.jsonl"
    write_results(path, [scored("two dogs", RECORD, [1.0, 0.0]), scored("a dog", {"include": []}, [0.5])])
    return path


def test_one_line_an_image_with_the_official_keys(results):
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["correct"] for line in lines] == [True, False, False]  # strict scores: half is not correct
    assert [line["tag"] for line in lines] == ["counting", "counting", "other"]
    first = lines[1]
    assert list(first) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert (first["prompt"], first["reason"], json.loads(first["details"])) == ("two dogs", "too few", {"dog": 0.0})
    assert json.loads(first["metadata"]) == {**RECORD, "prompt": "two dogs"}
    assert first["filename"] == str(results.parent / "run" / "00000" / "samples" / "0001.png")
    assert (np.asarray(Image.open(first["filename"])) == 40).all()


def test_the_images_lie_as_the_official_evaluation_expects(results):
    folder = image_folder(results)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "00000/metadata.jsonl",
        "00000/samples/0000.png",
        "00000/samples/0001.png",
        "00001/metadata.jsonl",
        "00001/samples/0000.png",
    ]
    record = {"include": [], "tag": "other", "prompt": "a dog"}
    assert (folder / "00001/metadata.jsonl").read_text() == json.dumps(record) + "\n"


def test_older_results_are_replaced_and_nothing_of_them_stays(results):
    check_results_path(results)
    write_results(results, [scored("a cat", RECORD, [1.0])])
    assert len(results.read_text().splitlines()) == 1
    assert [path.name for path in image_folder(results).rglob("*.png")] == ["0000.png"]
    image_folder(results).rename(results.parent / "moved")
    check_results_path(results)  # results without their images are results
    results.write_text('{"filename": "a.png", "correct": true}\n')
    check_results_path(results)


def refused(path):
    with pytest.raises(ConfigError) as caught:
        check_results_path(path)
    return str(caught.value)


def test_results_have_a_name_of_their_own(tmp_path):
    check_results_path(tmp_path / "new" / "run.jsonl")
    assert "'.json'" in refused(tmp_path / "run.json")
    (tmp_path / "folder.jsonl").mkdir()
    assert "folder.jsonl exists and does not hold GenEval results" in refused(tmp_path / "folder.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "a star"}\n',
        '{"filename": "a.png"}\n',
        '["filename", "correct"]\n',
        "",
        "7\n",
        "null\n",
        "{torn",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_of_anything_else_is_not_replaced(tmp_path, text):
    path = tmp_path / "run.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "does not hold GenEval results" in refused(path)


@pytest.mark.parametrize("name", ["model.safetensors", "000000", "1", "00000x"])
def test_a_folder_of_anything_else_is_not_replaced(tmp_path, name):
    (tmp_path / "run" / "00000").mkdir(parents=True)
    check_results_path(tmp_path / "run.jsonl")
    (tmp_path / "run" / name).touch()
    said = refused(tmp_path / "run.jsonl")
    assert f"{tmp_path / 'run' / name} is in the way" in said


def test_a_file_where_the_images_go_is_in_the_way(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert f"{tmp_path / 'run'} is in the way" in refused(tmp_path / "run.jsonl")
