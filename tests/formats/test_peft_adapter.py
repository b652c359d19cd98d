"""Adapters of PEFT: what peft computed with its own, what it loads of ours, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2kit.errors import FormatError, WeightMismatch
from gpt2kit.formats import huggingface
from gpt2kit.formats.peft_adapter import read, with_adapter, write
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.convert import convert

ADAPTERS = (
    *("c_attn", "patterns", "regex", "all_linear", "one_layer", "embeddings", "head", "saved_embedding"),
    "saved_head",
)
C_ATTN, PREFIX = "h.1.attn.c_attn.weight", "base_model.model."


@pytest.fixture(scope="module")
def adapters(golden):
    return golden / "peft"


@pytest.fixture
def copy_of(adapters, tmp_path):
    """copy_of(name): a copy of one of peft's adapters, to be changed."""
    return lambda name: shutil.copytree(adapters / name, tmp_path / name)


@pytest.fixture
def settings(copy_of):
    """settings(name, **changes): a copy of an adapter whose adapter_config.json says something else."""

    def changed(name, **changes):
        place = copy_of(name)
        file = place / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
        return place

    return changed


@pytest.fixture
def tensors(copy_of):
    """tensors(name, change): a copy of an adapter with the tensors that `change` makes of its own, by peft's names."""

    def changed(name, change):
        place = copy_of(name)
        file = place / "adapter_model.safetensors"
        save_file({n: t.contiguous() for n, t in change(load_file(file)).items()}, file)
        return place

    return changed


def logits_of(checkpoint, ids, engine=ReferenceEngine):
    return engine(checkpoint, 1).step([Row(0, ids[0].tolist(), "all")])


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.read_float32(), expected[name].read_float32(), err_msg=name)


# --- what peft computed ---


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_are_pefts_merged_and_apart(tiny_checkpoint, adapters, name):
    theirs = np.load(adapters / name / "expected.npz")
    found = logits_of(with_adapter(tiny_checkpoint, adapters / name), theirs["ids"])
    for kind in {"logits", "merged"} & {*theirs}:
        np.testing.assert_allclose(found, theirs[kind][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["patterns", "head"])
def test_the_native_engine_takes_it_as_any_other_model(tiny_checkpoint, adapters, name):
    theirs = np.load(adapters / name / "expected.npz")
    found = logits_of(
        with_adapter(tiny_checkpoint, adapters / name), theirs["ids"], lambda *asked: NativeEngine(*asked, "fp32", 1)
    )
    np.testing.assert_allclose(found, theirs["logits"][0], atol=1e-4, rtol=0)


def test_only_what_it_adapts_changes_and_a_tied_head_stays_tied(tiny_checkpoint, adapters):
    model = with_adapter(tiny_checkpoint, adapters / "one_layer")
    changed = {name for name, tensor in model.tensors.items() if tensor is not tiny_checkpoint.tensors[name]}
    assert changed == {C_ATTN, "h.1.mlp.c_fc.weight"}
    assert model.config == tiny_checkpoint.config
    assert dict(model.tokenizer_files) == dict(tiny_checkpoint.tokenizer_files)
    assert model.origin == f"{tiny_checkpoint.origin}+{adapters / 'one_layer'}"


@pytest.mark.parametrize(("name", "adapted_end"), [("embeddings", "wte.weight"), ("head", "lm_head.weight")])
def test_an_embedding_and_a_tied_head_part_where_one_of_them_is_adapted(tiny_checkpoint, adapters, name, adapted_end):
    model = with_adapter(tiny_checkpoint, adapters / name)
    (other_end,) = {"wte.weight", "lm_head.weight"} - {adapted_end}
    embedding = tiny_checkpoint.tensors["wte.weight"].read()
    assert not model.config.tied_head
    np.testing.assert_array_equal(model.tensors[other_end].read(), embedding)
    assert np.abs(model.tensors[adapted_end].read() - embedding).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patterns", "saved_head"])
def test_transformers_computes_the_same_with_what_a_merge_writes(
    transformers, tiny_checkpoint, adapters, tmp_path, name
):
    conversion = convert(with_adapter(tiny_checkpoint, adapters / name), tmp_path / "merged")
    assert conversion.difference.nothing
    theirs = np.load(adapters / name / "expected.npz")
    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        logits = model(torch.tensor(theirs["ids"])).logits.numpy()
    np.testing.assert_allclose(logits, theirs["merged"], atol=1e-4, rtol=0)


def test_two_adapters_add_up(tiny_checkpoint, adapters):
    both = with_adapter(with_adapter(tiny_checkpoint, adapters / "c_attn"), adapters / "one_layer")
    base, *apart = (
        checkpoint.tensors[C_ATTN].read_float32()
        for checkpoint in (
            tiny_checkpoint,
            *(with_adapter(tiny_checkpoint, adapters / name) for name in ("c_attn", "one_layer")),
        )
    )
    np.testing.assert_allclose(both.tensors[C_ATTN].read(), sum(apart) - base, atol=1e-6)
    assert both.base_origin == tiny_checkpoint.origin


def test_a_base_of_halves_becomes_float32(golden, adapters):
    base = huggingface.read(golden / "hf-halfprec" / "fp16")
    model = with_adapter(base, adapters / "c_attn")
    assert {tensor.dtype for tensor in model.tensors.values()} == {"float32"}
    stored = load_file(adapters / "c_attn" / "adapter_model.safetensors")
    a, b = (stored[f"{PREFIX}transformer.h.1.attn.c_attn.lora_{half}.weight"] for half in "AB")
    expected = torch.tensor(base.tensors[C_ATTN].read_float32()) + 12 / 4 * (b @ a).T
    np.testing.assert_allclose(model.tensors[C_ATTN].read(), expected, atol=1e-6)


# --- how it may be stored ---


def test_a_file_of_torch_is_read_as_well(tiny_checkpoint, adapters, copy_of):
    place = copy_of("patterns")
    torch.save(load_file(place / "adapter_model.safetensors"), place / "adapter_model.bin")
    (place / "adapter_model.safetensors").unlink()
    same(with_adapter(tiny_checkpoint, place).tensors, with_adapter(tiny_checkpoint, adapters / "patterns").tensors)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."),
        lambda name: name.replace("embedding_A", "embedding_A.default").replace("embedding_B", "embedding_B.default"),
        lambda name: name.removeprefix(PREFIX),
        lambda name: name.replace("transformer.", ""),  # of a GPT2Model
        lambda name: name.replace("base_layer.", "modules_to_save.default."),
    ],
)
@pytest.mark.parametrize("name", ["patterns", "embeddings"])
def test_other_names_for_the_same_tensors_are_known(tiny_checkpoint, adapters, tensors, name, renamed):
    place = tensors(name, lambda found: {renamed(stored): tensor for stored, tensor in found.items()})
    if not any("transformer." in stored for stored in load_file(place / "adapter_model.safetensors")):
        file = place / "adapter_config.json"
        file.write_text(file.read_text("utf-8").replace("transformer.", ""), "utf-8")
    same(with_adapter(tiny_checkpoint, place).tensors, with_adapter(tiny_checkpoint, adapters / name).tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_widened(tiny_checkpoint, tensors, tmp_path, dtype):
    place = tensors("c_attn", lambda found: {name: tensor.to(dtype) for name, tensor in found.items()})
    widened = shutil.copytree(place, tmp_path / "widened")
    stored = load_file(place / "adapter_model.safetensors")
    save_file({n: tensor.float() for n, tensor in stored.items()}, widened / "adapter_model.safetensors")
    same(with_adapter(tiny_checkpoint, place).tensors, with_adapter(tiny_checkpoint, widened).tensors)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "regex",
            {"target_modules": r".*\.(h|g)*\.(0|2)\.mlp\.c_\w(.*)"},
        ),  # too intricate to be matched, and not asked
        ("all_linear", {"target_modules": "all-linear"}),
        ("one_layer", {"layers_to_transform": 1}),
        ("one_layer", {"layers_pattern": "h"}),
        ("one_layer", {"target_modules": ["h.1.attn.c_attn", "h.1.mlp.c_fc"], "layers_to_transform": None}),
        ("c_attn", {"target_modules": None}),
        ("c_attn", {"target_modules": ["c_attn", "c_fc"], "exclude_modules": ["c_fc"]}),
        ("patterns", {"rank_pattern": {r"^transformer\.h\.1\.mlp\.c_proj": 3, r"(attn|abc)\.c_proj": 5}}),
        ("patterns", {"alpha_pattern": {r"h\.\d+\.mlp\.c_fc": 7, ".*2.attn.c_attn": 9, "attn": 1000}}),
    ],
)
def test_other_words_for_the_same_settings_are_known(tiny_checkpoint, adapters, settings, name, changes):
    found = with_adapter(tiny_checkpoint, settings(name, **changes))
    same(found.tensors, with_adapter(tiny_checkpoint, adapters / name).tensors)


# --- what is written ---


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_written_says_what_was_read(adapters, tmp_path, name):
    write(read(adapters / name), tmp_path / "out")
    ours, theirs = (load_file(place / "adapter_model.safetensors") for place in (tmp_path / "out", adapters / name))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[stored], theirs[stored]) for stored in ours)
    texts = [(place / "adapter_config.json").read_text("utf-8") for place in (tmp_path / "out", adapters / name)]
    assert json.loads(texts[0]) == json.loads(texts[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["patterns", "embeddings", "saved_head"])
def test_peft_computes_the_same_with_what_we_write(transformers, golden, adapters, tmp_path, name):
    from peft import PeftModel

    write(read(adapters / name), tmp_path / "out")
    base = transformers.GPT2LMHeadModel.from_pretrained(golden / "hf-safetensors")
    theirs = np.load(adapters / name / "expected.npz")
    with torch.inference_mode():
        model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
        logits = model(input_ids=torch.tensor(theirs["ids"])).logits.numpy()
    np.testing.assert_allclose(logits, theirs["logits"], atol=1e-6, rtol=0)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; of the adapters of PEFT only 'LORA' is known here"),
        ({"use_dora": True}, "use_dora: DoRA, which scales every column of the sum; merge it with PEFT"),
        ({"lora_bias": True}, "lora_bias: a LoRA with biases of its own"),
        ({"layer_replication": [[0, 3], [1, 3]]}, "layer_replication: a model with some layers doubled"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens: an activated LoRA"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices: single tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "is 'pissa_niter_4': it adds to other weights than the base's"),
        ({"r": 5}, r"c_attn.lora_A.weight is \(4, 40\), but adapter_config.json tells of rank 5 there"),
        ({"rank_pattern": {"h.2.attn.c_attn": 6}}, "tells of rank 6 there"),
        ({"target_modules": ["c_attn", "c_fc"]}, "asks for 3 modules of this base without tensors here, such as tran"),
        ({"target_modules": ["c_proj"]}, "asks for 6 modules"),
        ({"layers_to_transform": [0, 1]}, "has tensors for transformer.h.2.attn.c_attn, for which"),
        ({"target_modules": r".*\.0\.attn\.c_attn"}, "has tensors for transformer.h.1.attn.c_attn, for which"),
    ],
)
def test_what_is_no_plain_lora_or_says_other_things_than_its_tensors(tiny_checkpoint, settings, changes, told):
    with pytest.raises(FormatError, match=told):
        with_adapter(tiny_checkpoint, settings("c_attn", **changes))


@pytest.mark.parametrize("name", ["embeddings", "head", "saved_embedding"])
def test_an_embedding_that_shall_stay_tied_is_refused(tiny_checkpoint, settings, name):
    with pytest.raises(
        FormatError, match="ensure_weight_tying: of an embedding adapted under two names PEFT keeps one"
    ):
        with_adapter(tiny_checkpoint, settings(name, ensure_weight_tying=True))


def test_settings_of_a_later_peft_are_pointed_out(tiny_checkpoint, settings):
    with pytest.warns(UserWarning, match="settings unknown here, and not heeded: 'use_abclora'$"):
        with_adapter(tiny_checkpoint, settings("c_attn", use_abclora=True, use_xyzlora=None))


LAST = f"{PREFIX}transformer.h.2.attn.c_attn"


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda found: {n: t for n, t in found.items() if LAST not in n}, FormatError, "1 modules .* or for a smaller"),
        (lambda found: found | {f"{LAST}.lora_A.x.weight": torch.ones(4, 40)}, FormatError, "is a second A"),
        (lambda found: found | {f"{LAST}.lora_A.weight": torch.ones(4)}, FormatError, "have no product"),
        (lambda found: found | {f"{LAST}.lora_A.weight": torch.ones(5, 40)}, FormatError, "have no product"),
        (lambda found: found | {f"{LAST}.lora_A.weight": torch.ones(4, 40).int()}, FormatError, "is int32; expected"),
        (lambda found: {n: t for n, t in found.items() if n != f"{LAST}.lora_B.weight"}, FormatError, "no lora_B"),
        (
            lambda found: found | {n.replace("transformer.", ""): t.clone() for n, t in found.items()},
            FormatError,
            "and the same",
        ),
        (lambda found: {}, FormatError, "holds no lora_A of any module, but nothing"),
        (lambda found: found | {f"{LAST}.lora_A.weight": torch.ones(4, 41)}, WeightMismatch, r"for a .*\(41, 120\)"),
        (lambda found: found | {f"{LAST}.lora_B.weight": torch.ones(99, 4)}, WeightMismatch, r"for a .*\(40, 99\)"),
        (lambda found: found | {f"{LAST}.bias": torch.ones(99)}, WeightMismatch, r"\(99,\), but .* \(120,\)"),
        (lambda found: found | {f"{LAST}.base_layer.weight": torch.ones(9, 9)}, WeightMismatch, r"\(9, 9\), but"),
        (lambda found: found | {f"{LAST}.lora_B.bias": torch.ones(120)}, WeightMismatch, "has no such tensor"),
        (lambda found: found | {f"{LAST}.lora_magnitude_vector": torch.ones(120)}, WeightMismatch, "no such tensor"),
        (lambda found: found | {f"{PREFIX}score.weight": torch.ones(2, 40)}, WeightMismatch, "no such tensor"),
        (
            lambda found: found | {f"{PREFIX}transformer.ln_f.lora_{half}.weight": torch.ones(4, 4) for half in "AB"},
            WeightMismatch,
            r"for a tensor of \(4, 4\), but .* has ln_f.weight \(40,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tiny_checkpoint, tensors, change, error, told):
    with pytest.raises(error, match=told):
        with_adapter(tiny_checkpoint, tensors("c_attn", change))


def test_another_base_is_refused(golden, adapters):
    base = huggingface.read(golden / "hf-v5")
    smaller = replace(base, config=replace(base.config, layers=2))
    with pytest.raises(WeightMismatch, match=r"h\.2\.attn.* has no such tensor; name the base that the adapter was"):
        with_adapter(smaller, adapters / "c_attn")


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_refused(tiny_checkpoint, copy_of, missing):
    place = copy_of("c_attn")
    (place / missing).unlink()
    with pytest.raises(FormatError, match="no adapter of PEFT, which is" if "config" in missing else "without weights"):
        with_adapter(tiny_checkpoint, place)
