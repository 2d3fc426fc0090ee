"""The documentation: pages name only what exists, a build with a fault fails and says where, cheap commands work."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import blip3o_grpo as bg
from blip3o_grpo.cli import app
from blip3o_grpo.study.design import plan_study
from scripts.docs_site import configuration
from scripts.docs_site.hooks import all_pages
from scripts.docs_site.markdown import Page, commands_of
from scripts.docs_site.named import Checker
from scripts.docs_site.seams import FILES, read_seams

ROOT = Path(__file__).resolve().parents[2]
PAGES, MADE = all_pages(ROOT)
CHECKED = {path: page for path, page in PAGES.items() if path != "CHANGELOG.md"}
FAULTS = {
    "See [there](nowhere.md).": "link 'nowhere.md': there is no file docs/nowhere.md",
    "See [there](rewards.md#no-such-heading).": "docs/rewards.md has no heading #no-such-heading",
    "See [there](#no-such-heading).": "docs/page.md has no heading #no-such-heading",
    "![a picture](pictures/gone.png)": "link 'pictures/gone.png'",
    '<img src="pictures/gone.png">': "link 'pictures/gone.png'",
    "[there]: nowhere.md": "link 'nowhere.md': there is no file docs/nowhere.md",
    "See [a file](../configs/gone.yaml).": "there is no file configs/gone.yaml",
    "See [a file](../../secret.txt).": "it leads out of the repository",
    "See [a site](https://).": "it is not the address of a page",
    "Give `blip3o-grpo traim`.": "there is no command blip3o-grpo traim; did you mean train?",
    "Give `blip3o-grpo prompts genevaal`.": "there is no command blip3o-grpo prompts genevaal",
    "Give `blip3o-grpo eval tiny --suit ocr`.": "blip3o-grpo eval has no option --suit; did you mean --suite?",
    "```bash\n.venv/bin/blip3o-grpo train a.yaml \\\n    trainer.learning_rat=1\n```": "no key trainer.learning_rat;",
    "```bash\nblip3o-grpo eval tiny --set rollout.groups=1\n```": "there is no key rollout.groups",
    "```bash\nblip3o-grpo train my.yaml && blip3o-grpo repport RUN\n```": "no command blip3o-grpo repport",
    "```\nblip3o-grpo train a.yaml guards.no_spred=stop\n```": "no key guards.no_spred; did you mean guards.no_spread?",
    "```python\nbg.evaluate('tiny', overrides=['evaluation.top_q=1'])\n```": "there is no key evaluation.top_q",
    "```python\nconfig.trainer.max_step\n```": "there is no key trainer.max_step; did you mean trainer.max_steps?",
    "- a list\n\n  ```bash\n  blip3o-grpo plan --mesured RUN\n  ```": "blip3o-grpo plan has no option --mesured",
    "```console\n$ blip3o-grpo plan tiny_orc\n```": "no shipped recipe or study 'tiny_orc'; did you mean tiny_ocr?",
    "```bash\nblip3o-grpo ablate tiny_ocr\n```": "no shipped recipe or study 'tiny_ocr'",
    "```bash\nblip3o-grpo train configs/tiny_orc.yaml\n```": "there is no configs/tiny_orc.yaml",
    "```bash\npython scripts/make_mapp.py\n```": "there is no scripts/make_mapp.py",
    "```bash\npython scripts/make_full_size.py --layoot\n```": "scripts/make_full_size.py has no option --layoot",
    "```bash\npip install '.[cudda]'\n```": "no extra 'cudda'; did you mean cuda?",
    "Set `rollout.group_sise=4`.": "there is no key rollout.group_sise; did you mean rollout.group_size?",
    "Set `rewards[].replica`.": "there is no key rewards.0.replica",
    "```yaml\ntrainer: {max_stepz: 3}\n```": "there is no key 'max_stepz' here; did you mean max_steps?",
    "```yaml\nstudy_dir: s\narms:\n  - {name: a, wheights: {ocr: 1}}\n```": "there is no key 'wheights' here",
    "```yaml\nstudy_dir: s\noverrides: {trainer.max_step: 1}\n```": "there is no key trainer.max_step",
    "```yaml\nfaults: {retries: -1}\n```": "faults.retries: Input should be greater than or equal to 0",
    "```yaml\nfaults: {retries: 1\n```": "this is no YAML",
    "Read `grpo/gone.py`.": "there is no grpo/gone.py",
    "Read `grpo/cli.py::no_such_name`.": "grpo/cli.py has no no_such_name",
    "Held by `test_that_nobody_wrote`.": "there is no test test_that_nobody_wrote",
    "Call `bg.trein`.": "blip3o_grpo has no trein; did you mean train?",
    "Read `blip3o_grpo.rewards.images.as_rgbb`.": "blip3o_grpo.rewards.images has no as_rgbb",
    "```python\nbg.load_recipe('tiny_orc')\n```": "no shipped recipe or study 'tiny_orc'",
    "```python\nbg.load_recipe('tiny_ocr', 'trainer.beeta=1')\n```": "there is no key trainer.beeta",
    "```python\nbg.train(\n```": "this is no Python",
}
"""What a page could say wrongly, and what the check says of it."""
LINES = {
    text: 5
    + next(
        n for n, line in enumerate(text.splitlines()) if "wheights" in line or "max_step:" in line or "mesured" in line
    )
    for text in FAULTS
    if "study_dir" in text or "mesured" in text
}
"""Where it stands that is not the first line of its block."""
CHEAP = ("plan", "prompts")
"""Commands on pages that are run here; so is what asks for help, and `check_reward`."""


@pytest.mark.parametrize("page", CHECKED.values(), ids=CHECKED)
def test_a_page_names_only_what_exists(page):
    """With the real command line, schema and files; README and CONTRIBUTING too."""
    assert Checker(ROOT, PAGES, MADE).problems(page) == []


@pytest.mark.parametrize("text", FAULTS)
def test_what_does_not_exist_is_named_with_its_line(text):
    """Each fault is found, on the line where it stands, and nothing else is."""
    page = Page("docs/page.md", f"# A page\n\nWords.\n\n{text}\n")
    problems = Checker(ROOT, {**PAGES, page.path: page}, MADE).problems(page)
    assert len(problems) == 1 and FAULTS[text] in str(problems[0]), problems
    first = 5 if "\n" not in text else 6 if text.count("\n") == 2 else LINES.get(text, 6)
    assert (problems[0].path, problems[0].line) == ("docs/page.md", first)


def test_lines_are_counted_through_blocks():
    """A fault below code blocks and inside a long one has its own line."""
    text = "# A page\n\n```yaml\nseed: 1\n\ntrainer:\n  beta: 0\n  betta: 1\n```\n\n`grpo/gone.py`\n"
    problems = Checker(ROOT, PAGES, MADE).problems(Page("docs/page.md", text))
    assert [problem.line for problem in problems] == [8, 11]


def test_a_build_with_faults_fails_and_says_where(tmp_path):
    """`mkdocs build --strict` on a copy with one page more, and with a fault in README and in CONTRIBUTING."""
    for name in ("docs", "README.md", "CONTRIBUTING.md", "mkdocs.yml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for entry in ROOT.iterdir():
        if not (tmp_path / entry.name).exists() and entry.name not in ("build", ".git"):
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "docs" / "glossary.md").write_text("# Glossary\n\nSee [there](nowhere.md).\n\n`blip3o-grpo traim`\n")
    for name in ("README.md", "CONTRIBUTING.md"):
        with (tmp_path / name).open("a") as file:
            file.write("`trainer.betta`\n")
    lines = {name: len((tmp_path / name).read_text().splitlines()) for name in ("README.md", "CONTRIBUTING.md")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 1, built.stderr
    assert "docs/glossary.md:3: link 'nowhere.md': there is no file docs/nowhere.md" in built.stderr
    assert "docs/glossary.md:5: there is no command blip3o-grpo traim; did you mean train?" in built.stderr
    for name, line in lines.items():
        assert f"{name}:{line}: there is no key trainer.betta; did you mean trainer.beta?" in built.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html")]
    elsewhere = re.compile(r"<(script|img)[^>]*src=\"(http|//)|<link[^>]*href=\"(http|//)")
    assert len(pages) > 20 and not any(map(elsewhere.search, pages)), "a page needs something from another site"


def test_every_key_stands_in_the_reference_once():
    """With its type and its default, and with a docstring: the reference cannot be built without."""
    page = PAGES["docs/configuration.md"]
    for name, schema in configuration.SCHEMAS.items():
        for key in schema.model_fields:
            assert page.text.count(f"{{ #{name}.{key} }}") == 1
    facts = page.text.split("{ #run.rollout.group_size }\n:   ")[1].splitlines()[0]
    assert facts.startswith("whole number · ≥ 2") and facts.endswith("default `8`")


def test_every_entry_of_the_seams_has_a_name_and_a_test():
    """As many entries as the three files have tests named, none of them without a name."""
    for file in FILES.values():
        seams = read_seams(ROOT / file)
        named = set(
            re.findall(r"test_\w+", (ROOT / file).read_text(encoding="utf-8").partition('"""')[2].partition('"""')[2])
        )
        assert all(seam.names and seam.reason for seam in seams)
        assert {test for seam in seams for test in re.findall(r"\btest_\w+", seam.text)} >= named - {"test_trl_seams"}


def cheap_commands() -> list[tuple[str, list[str]]]:
    """Page and words of every command that costs next to nothing and needs no run."""
    found = []
    for page in (page for path, page in CHECKED.items() if path not in MADE):
        for block in (block for block in page.blocks if block.language in ("bash", "console")):
            for _, text in commands_of(block):
                words = shlex.split(text, comments=True)
                asks = {"-h", "--help", "--version"} & set(words)
                needs = {"--measured", "--calibration"} & set(words)
                ours = words[:1] == ["blip3o-grpo"] and (asks or words[1] in CHEAP) and not needs
                if ours or "check_reward" in text:
                    found.append((page.path, words))
    return found


@pytest.fixture
def like_a_checkout(tmp_path, monkeypatch):
    """Makes an empty folder with what pages find in a checkout, and goes there."""

    def enter(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for entry in ("configs", "examples", "policies"):
            (folder / entry).symlink_to(ROOT / entry)
        (folder / "my_rewards.py").write_text(readme_block("## Write a reward in ten lines", "python"))
        (folder / "my_recipe.yaml").write_text(readme_block("## Write a reward in ten lines", "yaml"))
        (folder / "my_study.yaml").write_text(readme_block("## A study in ten lines", "yaml"))
        monkeypatch.chdir(folder)
        return folder

    return enter


def test_cheap_commands_of_the_pages_work(like_a_checkout):
    """`plan`, `prompts`, help and `check_reward`, as they stand on the pages, page by page in an empty checkout."""
    pages, done = {}, set()
    for page, words in cheap_commands():
        pages.setdefault(page, []).append(tuple(words))
    assert {"README.md", "docs/results.md", "docs/runs.md", "docs/full-size.md"} <= set(pages)
    for page, commands in pages.items():
        folder = like_a_checkout(page)
        shutil.copy(ROOT / "configs/prompts/tiny_geneval_heldout.jsonl", folder / "evaluation_metadata.jsonl")
        (folder / "test.txt").write_text('a sign that says "UNSEEN WORDS"\n')
        for words in commands:
            if words[0] != "blip3o-grpo":
                exec(words[words.index("-c") + 1], {})
            elif words[1] != "plan" or words not in done:
                ran = CliRunner().invoke(app, list(words[1:]))
                assert ran.exit_code == 0, f"{page}: {shlex.join(words)}: {ran.output}"
            done.add(words)


def readme_block(heading: str, language: str) -> str:
    """The first block of README's section in that language."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(heading)[1]
    return section.split(f"```{language}\n")[1].split("```")[0]


def test_the_study_in_readme_is_one(like_a_checkout):
    """Saved as README says, it passes every check that comes before its first trial, whole and as a smoke test."""
    like_a_checkout("readme")
    plan = plan_study(bg.load_study("my_study.yaml"))
    assert [trial.name for trial in plan.trials] == [
        f"{arm}/seed-{s}" for arm in ("ocr", "bright", "both") for s in (0, 1)
    ]
    assert len(plan_study(bg.load_study("my_study.yaml", smoke=True)).trials) == 2


def test_readme_is_short():
    """A front door, not the house."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
