import re

import pytest

from gpt2kit.cli.options import size_in_bytes
from gpt2kit.errors import ConfigError
from gpt2kit.formats.registry import FORMATS


def test_a_model_is_converted_and_the_result_described(gpt2, here, model):
    status, out, _ = gpt2("convert", model, "out")
    assert status == 0
    what = r"out: safetensors, 74,280 parameters as float32, 0\.3 MB in 7 files"
    assert re.fullmatch(
        rf"{what}\nread again: bit-equal to what was read\nto write with it: gpt2 generate --model out\n", out
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nanoGPT computes gelu_exact")
@pytest.mark.parametrize("name", [format.name for format in FORMATS])
def test_every_format_of_the_list_can_be_asked_for(gpt2, here, model, name):
    assert re.search(rf"^{name} ", gpt2("convert", "--list")[1], re.MULTILINE)
    status, out, _ = gpt2("convert", model, "out", "--to", name)
    assert (status, out.split(",")[0]) == (0, f"out: {name}")


@pytest.mark.parametrize(("place", "name"), [("out.gguf", "gguf"), ("out.onnx", "onnx"), ("out.bin", "safetensors")])
def test_the_name_of_the_destination_tells_the_format(gpt2, here, model, place, name):
    assert gpt2("convert", model, place)[1].startswith(f"{place}: {name}, ")


def test_what_rounding_costs_is_told(gpt2, here, model):
    out = gpt2("convert", model, "out", "--dtype", "bfloat16")[1]
    cost = r"values differ by at most 0\.0\d+; over a probe, both find the same token likeliest at [\d.]+% of"
    assert re.search(cost, out)


def test_widening_costs_nothing(gpt2, here, golden):
    out = gpt2("convert", golden / "hf-halfprec" / "fp16", "out", "--dtype", "float32")[1]
    assert "read again: every value equal, in another type" in out


def test_a_missing_vocabulary_is_pointed_out(gpt2, here, golden):
    out = gpt2("convert", golden / "hf-halfprec" / "fp16", "out")[1]
    assert "no vocabulary came along, for there was none; put vocab.json and merges.txt into out" in out


def test_shards_are_asked_for_by_size(gpt2, here, model):
    assert gpt2("convert", model, "out", "--shard-size", "60KB")[0] == 0
    assert len(list(here.glob("out/model-*-of-00006.safetensors"))) == 6


@pytest.mark.parametrize("places", [(), ("one",), ("one", "two", "three")])
def test_both_places_are_asked_for(gpt2, places):
    status, _, err = gpt2("convert", *places)
    assert status == 1
    assert f"expected two places, SRC and DST, got {len(places)}; example: gpt2 convert 124M out" in err


def test_what_cannot_be_is_refused_in_one_line(gpt2, here, model):
    status, out, err = gpt2("convert", model, "out", "--to", "banana")
    assert (status, out) == (1, "")
    assert err == "gpt2: no format 'banana'; there are safetensors, nanogpt, bin, h5, openai, gguf, onnx\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5 GiB", 3 * 2**29), (" 60 kB ", 60_000), ("1 MiB", 2**20)],
)
def test_sizes_are_understood(text, size):
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "-1GB", "3XB", "1,5GB", "1e9", "٣MB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="expected a number with KB, MB, GB, KiB, MiB or GiB, such as 500MB"):
        size_in_bytes(text)


def test_a_base_and_its_adapter_become_one_model(gpt2, here, model, golden):
    poet = golden / "peft" / "patterns"
    assert gpt2("convert", f"{model}+{poet}", "merged")[0] == 0
    said = gpt2("inspect", f"{model}+{poet}")[1].splitlines()
    assert said[:3] == [f"origin       {model}+{poet}", "format       safetensors", f"adapter      {poet}"]
    assert gpt2("inspect", "--diff", f"{model}+{poet}", "merged")[0] == 0
    assert gpt2("inspect", "--diff", model, "merged")[0] == 1
