"""The reward on a real server of this machine, the suite's data, and the official files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.rewards import RewardBatch, RewardError, check_reward, find_reward, load_reward
from blip3o_grpo.rewards.benchmarks import BenchmarkPrompt, digest
from blip3o_grpo.rewards.dpg.questions import questions_of
from blip3o_grpo.rewards.dpg.results import check_results_path, read_results, write_results
from blip3o_grpo.rewards.dpg.scoring import columns
from blip3o_grpo.rewards.dpg.suite import SUITE, read
from tests.rewards.dpg.test_questions import CAT, DOG, HEADER
from tests.rewards.dpg.test_scoring import ALL, LAST, PROMPTS, official
from tests.rewards.judge.server import block, judging

DATA = Path(os.environ.get("BLIP3O_GRPO_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def csv(tmp_path):
    file = tmp_path / "dpg_bench.csv"
    file.write_text(f"{HEADER}\n{DOG}{CAT}")
    return file


def test_a_judge_answers_each_question_of_each_image(csv):
    prompts = read(csv, {}).prompts
    images = [np.full((8, 8, 3), level, np.uint8) for level in (200, 10, 200)]
    metadata = [prompts[0].metadata, prompts[0].metadata, prompts[1].metadata]
    batch = RewardBatch(images, ["p"] * 3, metadata)

    def reply(question, picture):
        assert question.endswith("? Answer with exactly yes or no.")
        return "no" if "brown" in question or picture.mean() < 100 else "yes"

    with judging(reply) as served:
        reward = load_reward("dpg", {"judge": block(served)})
        (first, why), (second, _), (third, _) = reward.explained_scores(batch)
        none = reward.score(RewardBatch(images[:1], ["p"], [{}]))
        check_reward(reward.instance, batch)
    assert first == pytest.approx(1 / 3)  # dog yes, brown no, and what hangs on brown 0
    assert (second, third, none) == (0.0, 1.0, [None])
    assert why["answers"] == {"1": 1.0, "2": 0.0, "3": 1.0} and why["usage"]["calls"] == 3
    assert why["judge"] == {"model": "tiny-judge", "version": "1"}


def test_an_answer_in_prose_is_never_a_score(csv):
    batch = RewardBatch([np.zeros((8, 8, 3), np.uint8)], ["p"], [read(csv, {}).prompts[1].metadata])
    with judging(lambda *_: "I see no cat.") as served:
        reward = load_reward("dpg", {"judge": block(served, retries=0)})
        with pytest.raises(RewardError, match="answered 'I see no cat.' instead of exactly yes or no"):
            reward.score(batch)


def test_damaged_questions_are_refused_before_anything_loads():
    with pytest.raises(RewardError, match="must be a list of questions"):
        find_reward("dpg").check_prompt("p", {"dpg": 1}, {})


def test_the_suite_reads_the_file_or_its_folder(csv):
    data = read(csv, {})
    assert read(csv.parent, {}).digest == data.digest
    assert [prompt.id for prompt in data.prompts] == ["dog1", "cat-2"]
    assert data.protocol == {"skip_first_row": False, "category_images": "all"}
    official = read(csv, {"skip_first_row": "true", "last_image_categories": "true"})
    assert [prompt.id for prompt in official.prompts] == ["cat-2"]
    assert official.protocol == {"skip_first_row": True, "category_images": "last"}
    assert (data.left_out, official.left_out) == (0, 1)
    assert "item 'dog1' depends on it and is left out" in official.notes[0]
    assert data.instructions.digest == digest(b"{question} Answer with exactly yes or no.")
    assert data.instructions.note == "The judge was asked: the official question. Answer with exactly yes or no."
    with pytest.raises(ConfigError, match="--data names the official dpg_bench.csv, or its folder"):
        read(None, {})
    with pytest.raises(ConfigError, match="no such file; --data names"):
        read(csv.parent / "other", {})
    assert (SUITE.benchmark.num_prompts, SUITE.benchmark.images_per_prompt) == (1065, 4)
    assert {row.model: row.overall for row in SUITE.published}["BLIP3o-NEXT 3B, after GRPO"] == 81.92


def test_questions_in_a_circle_are_told_below_the_table(tmp_path):
    (tmp_path / "dpg_bench.csv").write_text(f"{HEADER}\n{CAT.replace(',1,0,', ',1,1,')}{DOG}")
    assert "In 1 items, first 'cat-2', questions depend on themselves or on each other" in read(tmp_path, {}).notes[-1]


def test_official_files(tmp_path):
    path = tmp_path / "run.txt"
    check_results_path(path)
    write_results(path, PROMPTS)
    folder = tmp_path / "run"
    assert path.read_text().splitlines() == [
        f"{folder}/dog.png, 0.2, 1.0, 0.6",
        f"{folder}/cat.png, 0.5, 0.0, 0.25",
        "DPG-Bench score: 42.5",
    ]
    details = (tmp_path / "run_detail.txt").read_text().splitlines()
    assert len(details) == 2 * 5 + 2 * 2
    assert details[0] == f"{folder}/dog.png, (0, 0, 4, 4), Is there a dog?, no"
    assert details[-1] == f"{folder}/cat.png, (4, 0, 8, 4), Is there a cat?, no"
    assert np.asarray(Image.open(folder / "dog.png")).shape == (8, 8, 3)
    for there in (path, Path(f"{folder}_detail.txt"), folder):
        with pytest.raises(ConfigError, match="exists; give another name"):
            check_results_path(path)
        there.rename(tmp_path / f"moved-{there.name}")
    check_results_path(path)
    with pytest.raises(ConfigError, match="are written as .txt, not '.jsonl'"):
        check_results_path(tmp_path / "run.jsonl")


def as_asked():
    return [BenchmarkPrompt(prompt.id, prompt.prompt, prompt.metadata) for prompt in PROMPTS]


def test_recorded_answers_score_as_they_did(tmp_path):
    write_results(tmp_path / "run.txt", PROMPTS)
    detail = tmp_path / "run_detail.txt"
    lines = detail.read_text().splitlines()
    detail.write_text("\n".join(reversed(lines)))  # processes of the official script write in any order
    found = read_results(detail, as_asked())
    assert [prompt.scores for prompt in found.prompts] == [prompt.scores for prompt in PROMPTS] and found.notes == ()
    for counted in (ALL, LAST):
        assert columns(found.prompts, counted) == columns(PROMPTS, counted)


def test_any_other_word_than_yes_is_0_in_recorded_answers(tmp_path):
    file = tmp_path / "a_detail.txt"
    cat = as_asked()[1:]
    text = "x/cat.png, (0, 0, 4, 4), Is it a photo?, a drawing\nx/cat.png, (0, 0, 4, 4), Is there a cat?, yes \r\n"
    file.write_text(text + "x/other.png, (0, 0, 4, 4), Is it?, none\n")
    found = read_results(file, cat)
    assert found.prompts[0].scores == [0.5]
    assert found.notes == ("Of 2 recorded answers 1 are neither yes nor no: counted as no, officially.",)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", ":1: the answer is missing; it must be yes or no"),
        ("  ", ":1: the answer is missing; it must be yes or no"),
        ("Yes!", ":1: the answer is 'Yes!'; an official answer is exactly 'yes'"),
        ("Yes", ":1: the answer is 'Yes'; an official answer is exactly 'yes'"),
        ("NO.", ":1: the answer is 'NO.'; an official answer is exactly 'no'"),
    ],
)
def test_a_yes_in_another_form_or_no_word_is_never_scored_as_no(tmp_path, answer, message):
    file = tmp_path / "a_detail.txt"
    file.write_text(f"x/cat.png, (0, 0, 4, 4), Is it a photo?, {answer}\nx/cat.png, (0, 0, 4, 4), Is there a cat?, yes")
    with pytest.raises(ConfigError, match=message):
        read_results(file, as_asked()[1:])


def test_more_images_than_a_picture_holds_are_refused(tmp_path):
    file = tmp_path / "a_detail.txt"
    crops = [(0, 0, 4, 4), (4, 0, 8, 4), (0, 4, 4, 8), (4, 4, 8, 8), (0, 0, 5, 5)]
    questions = ("Is it a photo?", "Is there a cat?")
    file.write_text("\n".join(f"x/cat.png, {crop}, {question}, yes" for crop in crops for question in questions))
    with pytest.raises(ConfigError, match="item 'cat': answers about 5 images; it has 4 at most"):
        read_results(file, as_asked()[1:])


def test_the_official_files_first_items_score_as_in_the_official_loop(tmp_path):
    """Answers drawn at random about four images each; the loop is written down once more beside `test_scoring`."""
    path = DATA / "dpg" / "dpg_bench.csv"
    if not path.is_file():
        pytest.skip(f"the published question file is not here ({path}); BLIP3O_GRPO_TEST_DATA names its parent")
    prompts = read(path, {}).prompts[:20]
    generator, lines, totals = np.random.default_rng(0), [], []
    for prompt in prompts:
        questions, images = questions_of(prompt.metadata), []
        for left, top in ((0, 0), (4, 0), (0, 4), (4, 4)):
            answers = {question.id: float(generator.random() < 0.8) for question in questions}
            images.append(official(questions, answers))
            crop = (left, top, left + 4, top + 4)
            lines += [
                f"x/{prompt.id}.png, {crop}, {question.text}, {'yes' if answers[question.id] else 'no'}"
                for question in questions
            ]
        totals.append(np.mean(images))
    (tmp_path / "a_detail.txt").write_text("\n".join(lines))
    found = columns(read_results(tmp_path / "a_detail.txt", prompts).prompts, ALL)
    assert found[-1].value == pytest.approx(np.mean(totals))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["nonsense", *lines], ":1: expected `picture, .left, top, right, bottom., question, answer`"),
        (lambda lines: [*lines, lines[-1]], ":15: item 'cat': the question 'Is there a cat\\?' is answered twice"),
        (lambda lines: [line.replace("mat?", "rug?") for line in lines], "'Is there a rug\\?' is none of this item's"),
        (lambda lines: lines[:-1], "item 'cat': no answer to 'Is there a cat\\?' for one of its images"),
        (lambda lines: lines[:10], "holds no answers for 1 of 2 prompts, first 'cat'"),
        (lambda lines: lines[:12], "2 images of prompt 'dog', but 1 of 'cat'"),
        (lambda lines: [], "holds no answers for 2 of 2 prompts"),
    ],
)
def test_damaged_records_are_told(tmp_path, change, message):
    write_results(tmp_path / "run.txt", PROMPTS)
    detail = tmp_path / "run_detail.txt"
    detail.write_text("\n".join(change(detail.read_text().splitlines())))
    with pytest.raises(ConfigError, match=message) as error:
        read_results(detail, as_asked())
    assert "\n" not in str(error.value)
