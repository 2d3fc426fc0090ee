"""A reward's file beside its recipe is found, by itself and from its neighbours, and shadows nothing."""

import os
import random
import subprocess
import sys

import pytest

from blip3o_grpo.rewards import RewardBatch, RewardError, build_reward, find_reward

REWARD = "def constant(images, prompts, metadata):\n    return [{} for _ in images]\n"


def value(target, folder):
    """What a constant reward gives one image."""
    (score,) = build_reward(target, folder=folder)(RewardBatch([None], ["p"], [{}]))
    return score


def write(folder, **files):
    """Files by name; `__` stands for the slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_what_lies_beside_it_can_be_imported_at_the_top_and_later(tmp_path):
    write(
        tmp_path,
        mine="import beside\nimport pack.part as part\nfrom pack import other\n"
        "def constant(images, prompts, metadata):\n    import late\n"
        "    return [beside.A + part.B + other.C + late.D]\n",
        beside="from late import D\nA = 1\n",
        late="D = 8\n",
        pack__part="from .other import C\nB = 2\n",
        pack__other="C = 4\n",
    )
    (tmp_path / "pack/__init__.py").touch()
    assert value("mine:constant", tmp_path) == 15
    assert not {"mine", "beside", "late", "pack"} & set(sys.modules)
    assert str(tmp_path) not in sys.path


def test_a_reward_in_a_package_imports_by_the_packages_name(tmp_path):
    write(tmp_path, pack__rewards="from pack.other import C\n" + REWARD.format("C"), pack__other="C = 4\n")
    (tmp_path / "pack/__init__.py").touch()
    assert value("pack.rewards:constant", tmp_path) == 4


def test_files_named_like_other_modules_shadow_nothing(tmp_path):
    write(tmp_path, random="import random\n" + REWARD.format("random.Random(0).random()"), yaml=REWARD.format("2"))
    (tmp_path / "numpy").mkdir()  # a folder of data, no package
    write(tmp_path, uses="import numpy\n" + REWARD.format("numpy.float32(3)"))
    assert value("random:constant", tmp_path) == random.Random(0).random()
    assert value("yaml:constant", tmp_path) == 2
    assert value("uses:constant", tmp_path) == 3
    import yaml

    assert yaml.safe_load("1") == 1 and sys.modules["random"] is random


def test_what_compiled_code_imports_is_not_looked_for_beside_the_recipe(tmp_path):
    mine = "import time\n" + REWARD.format("time.strptime('7', '%d').tm_mday")
    write(tmp_path, mine=mine, _strptime="raise RuntimeError('not meant')\n")
    assert value("mine:constant", tmp_path) == 7


def test_two_folders_with_files_of_one_name_stay_apart(tmp_path):
    for number in (1, 2):
        write(tmp_path / str(number), mine="from helper import N\n" + REWARD.format("N"), helper=f"N = {number}\n")
    assert [value("mine:constant", tmp_path / str(number)) for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef constant(images, prompts:\n", r"bad.py:2: SyntaxError: "),
        ("def f():\nreturn 1\n", r"bad.py:2: IndentationError: "),
        ("\nimport nothing_of_this_name\n", r"bad.py:2: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("1 / 0\n", r"bad.py:1: ZeroDivisionError"),
        ("raise SystemExit(3)\n", r"bad.py:1: SystemExit: 3"),
        ("raise ValueError('one\\ntwo')\n", r"ValueError: one$"),
        ("é = '\xe9'\n".encode("latin-1"), r"bad.py"),
        ("x = 1\0\n", r"importing 'bad' failed: .*null bytes"),
    ],
)
def test_a_broken_file_is_told_in_one_line_with_its_place(tmp_path, text, message):
    (tmp_path / "bad.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RewardError, match=message) as caught:
        find_reward("bad:constant", tmp_path)
    assert "\n" not in str(caught.value)


def test_the_one_beside_the_recipe_wins_and_a_line_says_so(tmp_path, monkeypatch):
    installed = write(tmp_path / "site", mine=REWARD.format("1"), other=REWARD.format("5"))
    monkeypatch.syspath_prepend(str(installed))
    folder = write(tmp_path / "recipe", mine=REWARD.format("2"))
    spec = find_reward("mine:constant", folder)
    assert value("mine:constant", folder) == 2
    assert (
        spec.note == f"reward 'mine:constant': {folder}/mine.py is used, not the installed module {installed}/mine.py"
    )
    assert find_reward("other:constant", folder).note is None and value("other:constant", folder) == 5
    assert find_reward("mine:constant", installed).note is None  # one file, found in two ways


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mine:constnat", r"did you mean mine:constant\?"),
        ("mine.py:constant", "write mine:constant, a module's name and no path"),
        ("./mine.py:constant", "write mine:constant, a module's name and no path"),
        ("constant", r"unknown reward 'constant'; did you mean 'mine:constant'\?"),
        ("absent:constant", r"No module named 'absent' \(nor is there a absent.py in "),
    ],
)
def test_near_misses_are_named(tmp_path, target, message):
    write(tmp_path, mine=REWARD.format("1"))
    with pytest.raises(RewardError, match=message):
        find_reward(target, tmp_path)


def test_importing_rewards_from_a_folder_needs_no_pydantic_in_a_worker(tmp_path):
    write(tmp_path, mine=REWARD.format("1"))
    code = (
        f"import sys; from blip3o_grpo.rewards import find_reward; find_reward('mine:constant', {str(tmp_path)!r});"
        "assert not {'pydantic', 'torch', 'yaml', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=dict(os.environ))
