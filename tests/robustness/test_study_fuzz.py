"""Made-up study files: each is taken, or refused in one line before anything is written; never a traceback.

The test stops making up examples after `SECONDS` of its own; what it tried until then counts.
"""

from __future__ import annotations

import copy
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip3o_grpo.configs import ConfigError
from blip3o_grpo.configs.study import load_study_config
from blip3o_grpo.policies import PromptError
from blip3o_grpo.rewards import RewardError
from blip3o_grpo.study import design

SECONDS = 10.0
EXACT = {"name": "exact", "type": "ocr", "options": {"variant": "exact"}}
VALID = {
    "overrides": {"trainer.max_steps": 3},
    "rewards": [EXACT],
    "suites": [{"name": "signs", "prompts": "prompts.jsonl", "num_prompts": 4}],
    "goals": [{"suite": "signs", "reward": "exact", "margin": 0.1}],
    "seeds": [0, 1],
    "baseline": "start",
    "correction": "holm",
    "trials": {"concurrency": 1},
    "arms": [
        {"name": "a", "weights": {"ocr": 1}},
        {"name": "b", "weights": {"ocr": 1, "exact": 0.5}, "overrides": {"trainer": {"beta": 0.1}}},
    ],
}
plain = st.sampled_from(
    [None, True, 0, -1, 2, 0.5, 10**30, float("inf"), float("nan"), "", "a", "ocr", "signs", "start", "../a", "A",
     "trainer.beta", "seed", "prompts.jsonl", "\0", "²", "x" * 300, "[/a]", "\u202e"]
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "weights", "reward", "a", "trainer.beta", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value, found=()):
    """Every place in a tree of lists and dictionaries."""
    yield found
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*found, key))


@st.composite
def studies(draw):
    """The valid study with one to three values replaced, removed, or under another key."""
    tree = [copy.deepcopy(VALID)]
    for _ in range(draw(st.integers(1, 3))):
        place = (0, *draw(st.sampled_from(list(places(tree[0])))))
        holder = tree
        for key in place[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
            case "replace":
                holder[place[-1]] = draw(values)
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["nam", "arm", "goal", "ocr", "x.y", 7]))] = holder.pop(place[-1])
            case _ if len(place) > 1:
                del holder[place[-1]]
    return tree[0]


@pytest.fixture
def files(shared, tmp_path):
    recipe, _, _ = shared
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe))
    lines = "".join(f'{{"prompt": "a sign, number {n}, that says \\"TAXI\\""}}\n' for n in range(6))
    (tmp_path / "prompts.jsonl").write_text(lines)
    return tmp_path


def planned(folder, values):
    """As far as a study is checked before anything is written: its suites, goals and trials."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True))
    study = load_study_config(file)
    base = design.load_base(study)
    suites = design.load_suites(study, base)
    design.find_goals(study, base, suites)
    return design.make_trials(study, base, sum(map(len, suites.values())))


def test_the_study_itself_is_taken(files):
    assert len(planned(files, {"study_dir": "out", "base": "base.yaml", **VALID})) == 4


def test_any_change_of_a_study_is_taken_or_refused_in_one_line(files):
    ends, taken = time.process_time() + SECONDS, [0, 0]

    @settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(studies())
    def tried(changed):
        if time.process_time() > ends:
            return
        whole = {"study_dir": "out", "base": "base.yaml", **changed} if isinstance(changed, dict) else changed
        try:
            assert planned(files, whole)
            taken[0] += 1
        except (ConfigError, PromptError, RewardError) as error:
            assert str(error).strip() and "\n" not in str(error) and "Input should" not in str(error)
            taken[1] += 1

    tried()
    assert min(taken) > 0
    assert sorted(path.name for path in files.iterdir()) == ["base.yaml", "prompts.jsonl", "study.yaml"]
