"""DPG-Bench's scores by hand: chained dependencies, images, prompts, categories, total."""

import numpy as np
import pytest

from blip3o_grpo.rewards.dpg.questions import DPGItem, DPGQuestion, as_metadata
from blip3o_grpo.rewards.dpg.scoring import chained, columns, image_score
from blip3o_grpo.rewards.scored_prompt import ScoredPrompt

CHAIN = (
    DPGQuestion(1, (), "entity", "Is there a dog?"),
    DPGQuestion(2, (1,), "attribute", "Is it brown?"),
    DPGQuestion(3, (2,), "attribute", "Is the brown glossy?"),
    DPGQuestion(4, (), "entity", "Is there a mat?"),
    DPGQuestion(5, (1, 4), "relation", "Is it on the mat?"),
)
ALL, LAST = {"category_images": "all"}, {"category_images": "last"}


@pytest.mark.parametrize(
    ("answers", "scores", "mean"),
    [
        ((1, 1, 1, 1, 1), (1, 1, 1, 1, 1), 1.0),
        ((0, 1, 1, 1, 1), (0, 0, 0, 1, 0), 0.2),  # no dog: not brown; a colour that counts no more is not glossy
        ((1, 0, 1, 1, 1), (1, 0, 0, 1, 1), 0.6),
        ((1, 1, 0, 1, 1), (1, 1, 0, 1, 1), 0.8),
        ((1, 1, 1, 0, 1), (1, 1, 1, 0, 0), 0.6),  # one of two parents is enough
        ((1, 1, 1, 1, 0), (1, 1, 1, 1, 0), 0.8),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0.0),
    ],
)
def test_a_zeroed_parent_zeroes_its_children(answers, scores, mean):
    given = dict(enumerate(map(float, answers), start=1))
    assert chained(given, CHAIN) == dict(enumerate(map(float, scores), start=1))
    assert image_score(given, CHAIN) == pytest.approx(mean)
    assert given == dict(enumerate(map(float, answers), start=1))  # unchanged: categories need them


def test_a_parent_further_down_counts_with_its_own_answer():
    """The official script goes through the questions once, in their order."""
    late = (DPGQuestion(1, (2,), "entity", "a"), DPGQuestion(2, (3,), "entity", "b"), DPGQuestion(3, (), "entity", "c"))
    assert chained({1: 1.0, 2: 1.0, 3: 0.0}, late) == {1: 1.0, 2: 0.0, 3: 0.0}


def prompt(name, questions, *images):
    explanations = [{"answers": {str(i): float(a) for i, a in enumerate(answers, start=1)}} for answers in images]
    scores = [image_score({int(k): v for k, v in e["answers"].items()}, questions) for e in explanations]
    pictures = [np.zeros((4, 4, 3), np.uint8)] * len(images)
    return ScoredPrompt(name, as_metadata(DPGItem(name, name, questions)), pictures, scores, explanations, name)


TWO = (DPGQuestion(1, (), "global", "Is it a photo?"), DPGQuestion(2, (), "entity", "Is there a cat?"))
PROMPTS = [
    prompt("dog", CHAIN, (0, 1, 1, 1, 1), (1, 1, 1, 1, 1)),  # images .2 and 1: .6
    prompt("cat", TWO, (1, 0), (0, 0)),  # images .5 and 0: .25
]


def test_categories_pool_the_answers_and_the_total_is_the_mean_over_prompts():
    found = {column.name: column.value for column in columns(PROMPTS, ALL)}
    assert list(found) == ["global", "entity", "attribute", "relation", "overall"]
    assert found["overall"] == pytest.approx((0.6 + 0.25) / 2)
    assert found["global"] == pytest.approx(1 / 2)
    assert found["entity"] == pytest.approx((0 + 1 + 1 + 1 + 0 + 0) / 6)  # dog and mat of two images, cat of two
    assert found["attribute"] == pytest.approx(4 / 4)  # before dependencies
    assert found["relation"] == pytest.approx(2 / 2)


def test_the_official_script_takes_each_prompts_last_image_for_categories():
    found = {column.name: column.value for column in columns(PROMPTS, LAST)}
    assert found["overall"] == pytest.approx((0.6 + 0.25) / 2)
    assert (found["global"], found["entity"]) == (0.0, pytest.approx(2 / 3))


def test_other_categories_follow_and_titles_are_those_of_published_tables():
    odd = (DPGQuestion(1, (), "texture", "Is it rough?"), DPGQuestion(2, (), "other", "Is it odd?"))
    found = columns([prompt("a", odd, (1, 1)), PROMPTS[1]], ALL)
    assert [column.title for column in found] == ["Global", "Entity", "Other", "Texture", "Overall"]


def official(questions, answers):
    """The loop of `compute_dpg_bench.py`, written down once more in its own terms."""
    qid2scores = dict(answers)
    for qid, parents in ((q.id, q.parents or (0,)) for q in questions):
        for parent in parents:
            if parent != 0 and qid2scores[parent] == 0:
                qid2scores[qid] = 0
                break
    return sum(qid2scores.values()) / len(qid2scores)


def test_random_graphs_score_as_in_the_official_loop():
    generator = np.random.default_rng(0)
    for _ in range(300):
        count = int(generator.integers(1, 12))
        questions = tuple(
            DPGQuestion(
                n, tuple(int(p) for p in range(1, count + 1) if p != n and generator.random() < 0.2), "entity", "?"
            )
            for n in range(1, count + 1)
        )
        answers = {n: float(generator.random() < 0.7) for n in range(1, count + 1)}
        assert image_score(answers, questions) == official(questions, answers)
