"""The house rules a linter does not know: who may import whom, who may touch torch, what a file owes its reader.

A new room or a changed rule changes this file and docs/architecture.md together.
"""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpt2kit
from gpt2kit.cli.main import COMMANDS

ROOT = Path(gpt2kit.__file__).parent
REPOSITORY = Path(__file__).parents[2]
LAYERS = [  # a room may import the rooms on earlier lines; rooms on one line are strangers
    {"errors"},
    {"config", "progress", "atomic", "json_object"},
    {"checkpoint", "tokenizer"},
    {"model"},
    {"formats", "data", "runs"},
    {"hub"},
    {"resolve"},
    {"train", "generate"},
    {"evaluation"},
    {"jobs"},
    {"serve", "legacy"},
    {"cluster", "simple"},
    {"cli"},
]
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
FRONT_DOORS = {"__init__", "__main__"}  # these two hand out names and import from anywhere
JUNK = {"utils", "util", "helpers", "common", "misc", "manager", "base", "core"}
LONGEST_FILE = 400  # lines
TORCH_ROOMS = {"model", "train"}
TORCH_FILES = ["generate/torch_engine.py", "formats/nanogpt.py", "formats/onnx_*.py"]
SLOW_IMPORTS = {"torch", "numpy", "tiktoken", "tokenizers", "matplotlib", "fastapi", "transformers", "ray"}

MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py"))
FOLDERS = [REPOSITORY / name for name in ("src", "tests", "benchmarks", "docs")]
FILES = sorted(p.relative_to(REPOSITORY) for folder in FOLDERS for p in folder.rglob("*.py"))


def tree_of(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text("utf-8"))


def room_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_imports_point_down(module):
    room = room_of(module)
    if room in FRONT_DOORS:
        return
    assert room in DEPTH, f"{module}: give the new room a line in LAYERS"
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            assert not any(a.name.split(".")[0] == "gpt2kit" for a in node.names), (
                f"{module}:{node.lineno} use from-imports"
            )
        if isinstance(node, ast.ImportFrom):
            root_names = {a.name for a in node.names} if node.module == "gpt2kit" else set()
            assert node.level == 0, f"{module}:{node.lineno} write the full path"
            compiled = {"_native"} if room == "generate" else set()
            assert root_names <= {"__version__"} | compiled, f"{module}:{node.lineno} write the full path"
            if node.module.startswith("gpt2kit."):
                target = node.module.split(".")[1]
                allowed = target == room or DEPTH[target] < DEPTH[room]
                assert allowed, f"{module}:{node.lineno} {room} must not import {target}"


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_modules_say_what_they_are(module):
    assert ast.get_docstring(tree_of(module)), f"{module}: open it with one sentence"


@pytest.mark.parametrize("file", FILES, ids=Path.as_posix)
def test_files_are_short_and_named_after_what_they_do(file):
    names = {part.removesuffix(".py") for part in file.parts}
    assert not names & JUNK, f"{file}: name it after what it does"
    length = len((REPOSITORY / file).read_text("utf-8").splitlines())
    assert length <= LONGEST_FILE, f"{file}: {length} lines, at most {LONGEST_FILE}"


# --- torch ---


def torch_imports(node: ast.AST, inside_function: bool = False) -> Iterator[tuple[int, bool]]:
    """Every import of torch below `node`: (line, whether it waits for a call).

    Blocks that only a type checker reads do not count.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        for child in node.orelse:
            yield from torch_imports(child, inside_function)
        return
    if isinstance(node, ast.Import):
        names = [a.name for a in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
    else:
        names = []
    if any(name.split(".")[0] == "torch" for name in names):
        yield node.lineno, inside_function
    inside_function = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from torch_imports(child, inside_function)


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_only_the_rooms_that_need_torch_import_it(module):
    if room_of(module) in TORCH_ROOMS or any(module.match(pattern) for pattern in TORCH_FILES):
        return
    for line, inside_function in torch_imports(tree_of(module)):
        assert room_of(module) == "jobs", f"{module}:{line} torch has no business here"
        assert inside_function, f"{module}:{line} jobs import torch inside the function that needs it"


def loaded_by(program: str) -> set[str]:
    """The names of the packages a fresh interpreter holds after `program`."""
    ending = "\nprint('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program + ending], capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


HELP = """
import sys
from gpt2kit.cli.main import main

def help_of(*words):
    try:
        status = main([*words, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status in (0, None), f"gpt2 {' '.join(words)} --help: status {status}"
"""


def test_importing_the_package_loads_nothing_slow():
    slow = loaded_by("import sys, gpt2kit") & SLOW_IMPORTS
    assert not slow


def test_help_loads_nothing_slow():
    slow = loaded_by(HELP + "help_of()") & SLOW_IMPORTS
    assert not slow


@pytest.mark.slow
def test_help_of_every_command_loads_no_torch():
    calls = [f"help_of(*{name.split()!r})" for name in COMMANDS]
    slow = loaded_by("\n".join([HELP, *calls])) & {"torch"}
    assert not slow


# --- names and the map of them ---


@pytest.mark.parametrize("name", gpt2kit.__all__)
def test_public_names_have_a_docstring(name):
    thing = getattr(gpt2kit, name)
    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
        written = (thing.__doc__ or "").strip()
        assert written, f"gpt2kit.{name} has no docstring"
        assert not written.startswith(f"{name}("), f"gpt2kit.{name} has only the line that dataclass makes up"


def rows_of_the_map() -> list[list[str]]:
    """The table in docs/architecture.md: | `gpt2 command` | `module of its job` | rooms |"""
    lines = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8").splitlines()
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `gpt2 ")]


def test_the_map_shows_every_command_once():
    shown = [command.removeprefix("gpt2 ") for command, *_ in rows_of_the_map()]
    assert sorted(shown) == sorted(COMMANDS)


def test_the_map_leads_to_modules_that_exist():
    for _, job, *_ in rows_of_the_map():
        importlib.import_module(job)
