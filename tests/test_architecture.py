"""Imports run one way: no circles between modules, no arrow from a lower folder up to a higher one.

Read from the source, so imports inside functions and under TYPE_CHECKING count too. A name imported from a package
counts for the module that its stub (`__init__.pyi`) takes it from.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "blip3o_grpo"
FOLDERS = ("configs", "rewards", "policies", "rollout", "grpo", "scripts")
MAY_IMPORT = {
    "configs": (),
    "rewards": ("configs",),
    "policies": ("configs",),
    "rollout": ("configs", "rewards", "policies"),
    "grpo": ("configs", "rewards", "policies", "rollout"),
    "scripts": ("configs", "rewards", "policies", "rollout", "grpo"),
}
NOT_BELOW = {
    # What happens inside a step knows nothing of whoever runs it, evaluates it or reports it.
    "grpo/run": ("training", "evaluation", "reading", "warmstart", "report", "card", "study", "planning"),
    "grpo/training": ("evaluation", "reading", "warmstart", "report", "card", "study", "planning"),
    "grpo/evaluation": ("reading", "report", "card"),
    "grpo/reading": ("training", "report", "card"),
    "grpo/evaluation/heldout.py": ("training",),
    # Records and seeds know nothing of the workers that pass them on.
    "rollout/types.py": ("rollout",),
    "rollout/seeds.py": ("rollout",),
    "rollout/messages.py": ("faults", "placement", "weights", "workers", "pipeline", "flow"),
    "rollout/faults": ("placement", "weights", "workers", "pipeline", "flow"),
    "rollout/weights": ("pipeline", "flow"),
    "rollout/workers": ("placement", "pipeline", "flow"),
}
"""Room or file to the rooms it must not import."""


def module_name(path: Path) -> str:
    """Import name of a source file."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = {"grpo": [PACKAGE], "scripts": ["scripts"]}.get(folder, [PACKAGE, folder]) + rest
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def stub_names(path: Path) -> dict[str, str]:
    """Names that a package exports, by the module its stub takes them from."""
    stub = path.with_suffix(".pyi")
    if path.name != "__init__.py" or not stub.is_file():
        return {}
    lines = [line for line in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(line, ast.ImportFrom)]
    return {alias.name: f"{module_name(path)}.{line.module}" for line in lines for alias in line.names}


def read_imports() -> dict[str, set[str]]:
    """Module to the modules of ours that it imports."""
    files = {module_name(path): path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    stubs = {module: stub_names(path) for module, path in files.items()}
    imports: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are written out in full"
                for alias in node.names:
                    inside = f"{node.module}.{alias.name}"
                    targets.add(inside if inside in files else stubs.get(node.module, {}).get(alias.name, node.module))
        imports[module] = {target for target in targets if target in files} - {module}
    return imports


IMPORTS = read_imports()
FILES = {module_name(path): path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_arrows_between_folders_point_down():
    upward = [
        f"{FILES[module]} imports {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if (own := FILES[module].parts[0]) != (other := FILES[target].parts[0]) and other not in MAY_IMPORT[own]
    ]
    assert not upward


@pytest.mark.parametrize("room", NOT_BELOW)
def test_rooms_stay_below_what_uses_them(room):
    folder = room.split("/")[0]
    assert (ROOT / room).exists()
    upward = [
        f"{FILES[module]} imports {target}"
        for module, targets in IMPORTS.items()
        if FILES[module].is_relative_to(room)
        for target in targets
        if FILES[target].parts[0] == folder and ({*FILES[target].parts[:2], FILES[target].stem} & set(NOT_BELOW[room]))
    ]
    assert not upward


SEAMS = ("grpo/training/trl_seams.py", "rollout/ray_seams.py", "rollout/vllm_seams.py")
INSIDE = re.compile(
    r"(ray|vllm|trl)\b.*\._|vllm\.(v1|worker|model_executor|distributed|transformers_utils|utils)\b|trl\.\w"
)
"""Modules of Ray, vLLM and TRL that make no promise."""
USERS = re.compile(r"^\s*(?:from|import) (?:ray|vllm|trl)\b|import SeamedGRPOTrainer", re.MULTILINE)
"""Source that has objects of these libraries in its hands."""


def test_private_modules_and_names_of_ray_vllm_and_trl_are_used_in_the_seams_only():
    found = []
    for path in FILES.values():
        text = (ROOT / path).read_text(encoding="utf-8")
        if str(path) in SEAMS or path.parts[0] == "scripts" or not USERS.search(text):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        own = {"_exit"} | {node.name for node in nodes if isinstance(node, ast.FunctionDef)}  # Python's own `os._exit`
        own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for node in nodes:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [f"{path}:{node.lineno} imports {module}" for module in modules if INSIDE.match(module)]
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in own:
                found.append(f"{path}:{node.lineno} uses .{node.attr}")
    assert not found


@pytest.mark.parametrize("file", SEAMS)
def test_every_seam_says_where_it_is_discussed_and_names_a_test_that_exists(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    named = set(re.findall(r"\btest_(?!\w*seams\b)\w+", text))
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named and all(f"def {name}(" in tests for name in named), sorted(
        name for name in named if f"def {name}(" not in tests
    )
    assert len(re.findall(r"https://github\.com/[\w-]+/[\w-]+/(?:issues|pull)/\d+", text)) >= 5
