"""The notebook, read as a stranger reads it, and run from top to bottom on a tiny model."""

import ast
import inspect
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "finetune_gpt2.ipynb"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
TRAINING_LINE = re.compile(r"^\[(\d+) \| \d+\.\d\d\] loss=\d+\.\d\d avg=\d+\.\d\d$", re.MULTILINE)
FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001"),
    *("model.ckpt.index", "model.ckpt.meta", "vocab.bpe"),
)
PARAMETERS = {
    "MODEL_NAME": "tiny",
    "RUN_NAME": "poems",
    "FILE_NAME": "mine.txt",
    "STEPS": 6,
    "PRINT_EVERY": 2,
    "SAMPLE_EVERY": 3,
    "SAVE_EVERY": 3,
    "PREFIX": "Shall I",
    "LENGTH": 24,
    "TEMPERATURE": 0.7,
    "NSAMPLES": 2,
    "USE_DRIVE": True,
}


@pytest.fixture(scope="module")
def notebook():
    """The notebook, which nbformat finds valid."""
    read = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(read)
    return read


def cells(notebook, kind):
    """The cells of a kind: id -> source."""
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == kind}


def python(source):
    """A code cell as Python sees it, its magics turned into calls."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(source))


# --- as it lies in the repository ---


def test_it_is_a_notebook_of_today_for_any_python(notebook):
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.accelerator == "GPU"


def test_nothing_of_a_run_is_kept_in_it(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id


def test_every_cell_has_a_name_of_its_own(notebook):
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)


def test_every_explanation_speaks_english_and_then_chinese(notebook):
    for name, source in cells(notebook, "markdown").items():
        headings = [line for line in source.splitlines() if line.startswith("#")]
        paragraphs = [line for line in source.splitlines() if line and not line.startswith("#")]
        for english, *_, chinese in (headings, paragraphs):
            assert re.search(r"[A-Za-z]{2,}", english), name
            assert not CHINESE.search(english), name
            assert CHINESE.search(chinese), name


def test_every_code_cell_is_python(notebook):
    for source in cells(notebook, "code").values():
        python(source)


def test_every_function_it_calls_exists_and_has_these_parameters(notebook):
    from gpt2kit import simple

    called = set()
    for source in cells(notebook, "code").values():
        for node in ast.walk(python(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("gpt2."):
                name = node.func.attr
                given = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(getattr(simple, name)).bind(*node.args, **given)
                called.add(name)
    assert {"download_gpt2", "finetune", "load_gpt2", "generate", "generate_to_file", "mount_gdrive"} <= called


def test_what_the_user_may_choose_stands_in_one_cell(notebook):
    [chosen] = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [line.partition(" = ")[0] for line in chosen.splitlines()] == list(PARAMETERS)


# --- run on a tiny model ---


@pytest.fixture(scope="module")
def here(tmp_path_factory, golden):
    """A directory with models/tiny, as download_gpt2 leaves it; nobody reads its .meta."""
    directory = tmp_path_factory.mktemp("notebook")
    model = directory / "models" / "tiny"
    model.mkdir(parents=True)
    for name in FILES:
        if name.endswith(".meta"):
            (model / name).write_bytes(b"")
        else:
            shutil.copy(golden / "openai-tiny" / name, model)
    return directory


@pytest.fixture(scope="module")
def this_python(tmp_path_factory):
    """The name of a kernel that is this very interpreter; nothing of the user's Jupyter is read or written."""
    home = tmp_path_factory.mktemp("jupyter")
    kernel = home / "kernels" / "this"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(home))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # where the command gpt2 lies
        yield "this"


def with_(parameters):
    """The source of the parameters' cell, with other values."""
    return "\n".join(f"{name} = {value!r}" for name, value in parameters.items())


@pytest.fixture(scope="module")
def said(notebook, here, this_python):
    """What every code cell printed, by the cell's name, after all were run in turn; none may fail."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_(PARAMETERS)
    client = nbclient.NotebookClient(
        copy, kernel_name=this_python, timeout=120, resources={"metadata": {"path": str(here)}}
    )
    client.execute()
    return {cell.id: printed(cell) for cell in copy.cells if cell.cell_type == "code"}


def printed(cell):
    """The standard output of a cell that was run."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


@pytest.mark.slow
class TestRunFromTopToBottom:
    def test_it_says_what_it_runs_on(self, said):
        assert said["gpu"].startswith("GPU: ")

    def test_a_model_that_is_there_is_not_downloaded(self, said):
        assert said["download"] == ""

    def test_without_a_text_it_brings_one(self, said, here):
        assert "no mine.txt here" in said["text"]
        text = (here / "mine.txt").read_text("utf-8")
        assert text.startswith("Shall I compare thee to a summer's day?\n")
        assert "床前明月光" in text

    def test_the_training_tells_its_loss(self, said):
        assert "Loading checkpoint models/tiny/model.ckpt\nLoading dataset...\n" in said["finetune"]
        assert [int(step) for step in TRAINING_LINE.findall(said["finetune"])] == [2, 4, 6]
        assert "Saving checkpoint/poems/model-6" in said["finetune"]

    def test_a_run_and_its_samples_are_kept(self, said, here):
        run = here / "checkpoint" / "poems"
        assert (run / "counter").read_text() == "6\n"
        assert {"hparams.json", "encoder.json", "vocab.bpe", "model.safetensors"} <= {p.name for p in run.iterdir()}
        samples = sorted((here / "samples" / "poems").iterdir())
        assert samples[0].read_text("utf-8").startswith("======== SAMPLE 1 ========\n")

    def test_what_was_trained_is_loaded_again(self, said):
        assert said["load"].startswith("Loading checkpoint checkpoint/poems")

    def test_it_writes_from_nothing(self, said):
        assert said["generate"].strip()

    def test_it_goes_on_with_a_beginning(self, said):
        texts = said["generate-more"].split("=" * 20 + "\n")
        assert len(texts) == 3
        assert all(text.startswith("Shall I") for text in texts[:2])

    def test_it_fills_a_file(self, said, here):
        [file] = here.glob("gpt2_gentext_*.txt")
        assert said["file"] == f"{file.name}: 8 texts\n"
        assert file.read_text("utf-8").count("=" * 20 + "\n") == 8

    def test_the_command_line_writes_with_the_run(self, said):
        assert len(said["command"].strip()) > 20
        assert "gpt2: " not in said["command"]

    def test_the_run_is_listed_and_converted(self, said, here):
        assert "poems" in said["runs"]
        assert (here / "poems-for-transformers" / "model.safetensors").is_file()


@pytest.fixture
def trying(notebook, here, this_python):
    """Runs the cells up to the training with another FILE_NAME: what each cell printed, and all trouble."""

    def run(name, run_name):
        copy = nbformat.from_dict(notebook)
        parameters = with_({**PARAMETERS, "FILE_NAME": name, "RUN_NAME": run_name, "STEPS": 2})
        wanted = ("install", "import", "parameters", "drive", "text", "finetune")
        copy.cells = [cell for cell in copy.cells if cell.id in wanted]
        for cell in copy.cells:
            cell.source = parameters if cell.id == "parameters" else cell.source
        where = {"metadata": {"path": str(here)}}
        client = nbclient.NotebookClient(copy, kernel_name=this_python, timeout=120, resources=where, allow_errors=True)
        client.execute()
        trouble = [output.evalue for cell in copy.cells for output in cell.outputs if output.output_type == "error"]
        return {cell.id: printed(cell) for cell in copy.cells}, trouble

    return run


@pytest.mark.slow
def test_a_text_with_brackets_in_its_name_is_learnt_as_it_is(trying, here):
    content = "Two households, both alike in dignity.\n" * 40
    (here / "novel [2].txt").write_text(content, "utf-8")
    said, trouble = trying("novel [2].txt", "novel")
    assert (said["text"], trouble) == ("", [])
    assert (here / "novel [2].txt").read_text("utf-8") == content
    assert TRAINING_LINE.findall(said["finetune"]) == ["2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["thesis.txt", "thesis [2].txt", "poems/*.txt"])
def test_a_text_of_another_name_that_is_not_there_is_not_made_up(trying, here, name):
    before = set(here.rglob("*.txt"))
    said, trouble = trying(name, "nothing")
    assert said["text"] == ""
    assert len(trouble) == 1
    assert trouble[0].startswith(f"{name}: no such file or directory")
    assert set(here.rglob("*.txt")) == before
    assert not (here / "checkpoint" / "nothing").exists()


@pytest.mark.slow
def test_the_stop_button_saves_what_was_learnt(notebook, here, this_python):
    from jupyter_client.manager import start_new_kernel

    sources = {**cells(notebook, "code"), "parameters": with_({**PARAMETERS, "RUN_NAME": "stopped", "STEPS": -1})}
    manager, client = start_new_kernel(kernel_name=this_python, cwd=str(here))
    printed = []

    def hear(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])
            if "[4 |" in message["content"]["text"]:
                manager.interrupt_kernel()

    try:
        for name in ("install", "import", "parameters", "drive", "text", "finetune"):
            reply = client.execute_interactive(sources[name], output_hook=hear, timeout=60)
            assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    last = TRAINING_LINE.findall("".join(printed))[-1]
    assert "\ninterrupted\n" in "".join(printed)
    assert int((here / "checkpoint" / "stopped" / "counter").read_text()) >= int(last)
