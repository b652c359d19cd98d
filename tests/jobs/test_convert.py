import itertools
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.torch import load_file

import gpt2kit
from gpt2kit.errors import ConfigError, DiskFull, FormatError
from gpt2kit.jobs.convert import convert
from gpt2kit.resolve import open_checkpoint

FORMATS = ("openai", "bin", "h5", "safetensors")


def bits(checkpoint):
    return {name: (t.dtype, t.shape, np.asarray(t.read()).tobytes()) for name, t in checkpoint.tensors.items()}


# --- round trips ---


@pytest.mark.parametrize(
    "formats", [FORMATS, *(pytest.param(order, marks=pytest.mark.slow) for order in itertools.permutations(FORMATS))]
)
def test_a_way_through_all_formats_and_back_changes_no_bit(here, golden, formats):
    origin = place = golden / "openai-tiny"
    for number, name in enumerate((*formats, "openai")):
        conversion = convert(place, here / f"{number}-{name}", to=name)
        assert conversion.difference.nothing
        place = here / f"{number}-{name}"
    for name in ("model.ckpt.data-00000-of-00001", "encoder.json", "vocab.bpe", "checkpoint"):
        assert (place / name).read_bytes() == (origin / name).read_bytes(), name
    hparams = [json.loads((directory / "hparams.json").read_text("utf-8")) for directory in (place, origin)]
    assert hparams[0] == hparams[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("source", ["hf-v5", "openai-tiny", "hf-safetensors/sharded"])
def test_every_format_gives_every_model_back(here, golden, name, source):
    before = open_checkpoint(golden / source)
    conversion = convert(golden / source, "out", to=name)
    assert bits(conversion.checkpoint) == bits(before)
    assert conversion.checkpoint.config == before.config
    assert (conversion.format, conversion.equal_argmax) == (name, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_vocabulary_goes_along(here, golden, name):
    before, after = open_checkpoint(golden / "hf-v5"), convert(golden / "hf-v5", "out", to=name).checkpoint
    assert set(before.tokenizer_files) == {"tokenizer.json", "tokenizer_config.json"}
    assert gpt2kit.compare(before, after).vocabulary is None
    assert after.tokenizer_files


def test_the_config_json_has_what_old_and_new_readers_want(here, golden):
    convert(golden / "openai-tiny", "out")
    written = json.loads((here / "out" / "config.json").read_text("utf-8"))
    # pytorch-pretrained-bert 0.6.2 fails without these; llama.cpp's converter without n_ctx.
    wanted = {"vocab_size": 320, "n_positions": 64, "n_ctx": 64, "n_embd": 48, "n_layer": 3, "n_head": 4}
    assert wanted.items() <= written.items()
    assert {"layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "model_type": "gpt2"}.items() <= written.items()


# --- types and shards ---


@pytest.mark.parametrize(("dtype", "name"), [*itertools.product(("float16", "bfloat16"), ("safetensors", "bin"))])
def test_weights_are_rounded_as_torch_rounds_them(here, model, dtype, name):
    import torch

    conversion = convert(model, "out", to=name, dtype=dtype)
    before = load_file(model / "model.safetensors")
    largest = 0.0
    for tensor, values in before.items():
        rounded = values.to(getattr(torch, dtype)).float().numpy()
        found = conversion.checkpoint.tensors[tensor.removeprefix("transformer.")]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.read_float32(), rounded)
        largest = max(largest, float(np.abs(rounded - values.numpy()).max()))
    assert conversion.difference.largest == pytest.approx(largest)
    assert conversion.equal_argmax > 0.9


def test_half_precision_stays_what_it_is_where_the_format_holds_it(here, golden):
    before = open_checkpoint(golden / "hf-halfprec" / "bf16")
    assert bits(convert(golden / "hf-halfprec" / "bf16", "out", to="bin").checkpoint) == bits(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "h5"])
def test_half_precision_is_widened_exactly_for_tensorflow(here, golden, name):
    before = open_checkpoint(golden / "hf-halfprec" / "fp16")
    conversion = convert(golden / "hf-halfprec" / "fp16", "out", to=name)
    assert (conversion.difference.bit_equal, conversion.difference.largest, conversion.equal_argmax) == (False, 0, None)
    for tensor, values in before.tensors.items():
        np.testing.assert_array_equal(conversion.checkpoint.tensors[tensor].read(), values.read_float32())


@pytest.mark.parametrize(("name", "suffix"), [("safetensors", "safetensors"), ("bin", "bin")])
def test_shards_hold_no_more_than_asked_for(here, model, name, suffix):
    conversion = convert(model, "out", to=name, shard_bytes=60_000)
    sizes = [file.stat().st_size for file in here.glob(f"out/*.{suffix}")]
    assert len(sizes) >= 6
    assert max(sizes) < 60_000 + 6_000  # the values, and what a file says about them
    assert bits(conversion.checkpoint) == bits(open_checkpoint(model))


def test_a_step_of_an_old_run_is_chosen(here, shared):
    run = shared / "fixtures" / "nshepperd" / "checkpoint" / "run1"
    newest, older = convert(run, "newest"), convert(run, "older", step=2)
    assert bits(older.checkpoint) == bits(open_checkpoint(f"{run}@2")) != bits(newest.checkpoint)


def test_an_open_checkpoint_is_converted_too(here, tiny_checkpoint):
    assert bits(convert(tiny_checkpoint, "out").checkpoint) == bits(tiny_checkpoint)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"to": "banana"}, "no format 'banana'; there are safetensors, nanogpt, bin, h5, openai, gguf, onnx"),
        ({"to": "openai", "dtype": "bfloat16"}, "openai cannot hold bfloat16; it holds float32"),
        ({"to": "h5", "shard_bytes": 10}, "h5 is not written in shards"),
        ({"shard_bytes": 0}, "a shard must hold 1 byte or more, got 0"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_written(here, model, options, problem):
    with pytest.raises(ConfigError, match=problem):
        convert(model, "out", **options)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["openai", "h5"])
@pytest.mark.parametrize("variant", ["untied", "inv_layer_scale"])
def test_a_model_that_a_format_cannot_hold_is_refused(here, golden, variant, name):
    with pytest.raises(ConfigError, match="safetensors"):
        convert(golden / "hf-variants" / variant, "out", to=name)
    assert list(here.iterdir()) == []


def test_nothing_that_is_there_is_written_over(here, model):
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("all of it", "utf-8")
    with pytest.raises(ConfigError, match="out: holds something already; name a new directory"):
        convert(model, "out")
    assert [path.name for path in here.rglob("*")] == ["out", "thesis.txt"]


def test_an_empty_directory_is_taken(here, model):
    (here / "out").mkdir()
    assert bits(convert(model, "out").checkpoint) == bits(open_checkpoint(model))


def test_a_link_to_a_directory_stays_a_link(here, model):
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    convert(model, "link")
    assert (here / "link").is_symlink()
    assert bits(open_checkpoint(here / "real")) == bits(open_checkpoint(model))


def test_a_place_inside_of_the_source_is_refused(here, model, golden):
    source = here / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_bytes((golden / "hf-safetensors" / name).read_bytes())
    with pytest.raises(ConfigError, match="lies inside of what is converted, source; name a place outside"):
        convert("source", "source/out")
    assert sorted(path.name for path in source.iterdir()) == ["config.json", "model.safetensors"]


def test_a_place_where_nothing_can_be_made_is_named(here, model):
    (here / "story.txt").write_text("once", "utf-8")
    with pytest.raises(ConfigError, match=r"story\.txt/out: cannot be made there: Not a directory; name another place"):
        convert(model, "story.txt/out")


def test_too_little_room_is_noticed_before_anything_is_written(here, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 100_000}))
    with pytest.raises(DiskFull, match=r"out: takes 0\.3 MB, 0\.1 MB are free there; name a place with more"):
        convert(tiny_checkpoint, "out")
    assert list(here.iterdir()) == []


def test_a_disk_that_tells_lies_is_found_out(here, model):
    """The last byte changes between writing and reading: nothing gets the name."""

    def damage(progress):
        if progress.task == "compare" and progress.done < progress.total:
            with (here / ".out.partial" / "model" / "model.safetensors").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x55")

    with pytest.raises(FormatError, match=r"does not read back as it was written: values \(is the disk faulty"):
        convert(model, "out", report=damage)
    assert list(here.iterdir()) == []


# --- kills and full disks ---

INTERRUPTED = """
    import os, signal, sys
    import gpt2kit
    def report(progress):
        if progress.task.startswith(sys.argv[2]) and progress.done * 2 > progress.total:
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    gpt2kit.convert(sys.argv[1], "out", to=sys.argv[4], report=report)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("task", "how"), [("write", "SIGKILL"), ("compare", "SIGKILL"), ("write", "SIGINT")])
def test_nothing_half_written_gets_the_name(here, model, name, task, how):
    program = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(model), task, how, name]
    assert subprocess.run(program, cwd=here, capture_output=True).returncode != 0
    assert not (here / "out").exists()
    if how == "SIGINT":
        assert list(here.iterdir()) == []
    assert bits(convert(model, "out", to=name).checkpoint) == bits(open_checkpoint(model))
    assert [path.name for path in here.iterdir()] == ["out"]


LIMITED = """
    import resource, sys
    import gpt2kit
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        gpt2kit.convert(sys.argv[1], "out", to=sys.argv[2])
    except gpt2kit.Gpt2kitError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix system")
@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing(here, model, name):
    program = [sys.executable, "-c", textwrap.dedent(LIMITED), str(model), name]
    result = subprocess.run(program, cwd=here, capture_output=True, encoding="utf-8", check=True)
    assert "were written (they are gone again)" in result.stdout, result.stderr
    assert list(here.iterdir()) == []
