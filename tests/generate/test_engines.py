"""Every engine against what other programs computed, and against the reference engine, which keeps no cache."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit import _native
from gpt2kit.formats import huggingface
from gpt2kit.generate.engine import Row
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.generate.torch_engine import BATCH_SLOTS, TorchEngine
from gpt2kit.model.weights import to_network

CLOSE = 1e-4


def torch_for_batches(checkpoint, slots=BATCH_SLOTS):
    """With so many slots its matrices lie otherwise in memory."""
    return TorchEngine(checkpoint, max(slots, BATCH_SLOTS))


def torch_for_few(checkpoint, slots=2):
    return TorchEngine(checkpoint, min(slots, BATCH_SLOTS - 1))


NATIVE = [f"native {isa}" for isa in _native.isas()]


@pytest.fixture(scope="module", params=["reference", "torch", "torch for batches", *NATIVE])
def open_engine(request):
    """Makes an engine of each kind from a checkpoint; the native one with each instruction set."""
    kind, _, isa = request.param.partition("native ")
    if isa:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GPT2KIT_ISA", isa)
            yield partial(NativeEngine, precision="fp32", threads=2)
    else:
        yield {"reference": ReferenceEngine, "torch": torch_for_few, "torch for batches": torch_for_batches}[kind]


@pytest.fixture
def engine(open_engine, tiny_checkpoint):
    return open_engine(tiny_checkpoint, slots=4)


@pytest.fixture(scope="module")
def stored(golden):
    """What transformers computed from the tiny checkpoint: tokens_1 are two rows of 20 ids, tokens_2 is one of 56."""
    return np.load(golden / "hf-safetensors" / "expected.npz")


@pytest.fixture(scope="module")
def ids(stored):
    return stored["tokens_2"][0].tolist()


@pytest.fixture(scope="module", name="logits_TV")
def logits_of_the_ids(stored):
    return stored["logits_2"][0]


def close(found_RV, expected_RV):
    np.testing.assert_allclose(found_RV, expected_RV, atol=CLOSE)


def everything(slot, ids):
    return Row(slot, ids, "all")


# --- equal to other programs ---


def test_logits_are_those_of_transformers(open_engine, example):
    checkpoint = huggingface.read(example.directory)
    for ids_BT, expected_BTV in example.logits:
        rows = [everything(slot, ids_T.tolist()) for slot, ids_T in enumerate(ids_BT)]
        close(open_engine(checkpoint).step(rows), np.concatenate(expected_BTV))


def test_the_likeliest_continuation_is_that_of_transformers(open_engine, example):
    engine = open_engine(huggingface.read(example.directory), slots=1)
    tokens, new = list(example.greedy_prompt), example.greedy_prompt
    while len(tokens) < len(example.greedy_tokens):
        new = [int(engine.step([Row(0, new)]).argmax())]
        tokens += new
    assert tokens == example.greedy_tokens


def test_logits_are_float32(engine, ids):
    assert engine.step([Row(0, ids)]).dtype == np.float32


# --- the cache changes nothing ---


@pytest.mark.parametrize(
    "pieces",
    [[28, 28], [1, 55], [55, 1], [1, 2, 3, 50], [1] * 56],
    ids=["halves", "first", "last", "unequal", "one by one"],
)
def test_a_prompt_may_come_in_pieces(engine, ids, logits_TV, pieces):
    starts = np.cumsum([0, *pieces])
    found = [
        engine.step([everything(0, ids[start : start + n])]).copy() for start, n in zip(starts, pieces, strict=False)
    ]
    close(np.concatenate(found), logits_TV)


@pytest.mark.parametrize("kept", [0, 1, 19, 55])
def test_a_truncated_slot_goes_on_from_there(engine, ids, logits_TV, kept):
    engine.step([Row(0, ids[:kept] + [7] * (56 - kept), "none")])
    engine.truncate(0, kept)
    close(engine.step([everything(0, ids[kept:])]), logits_TV[kept:])


def test_truncating_beyond_the_end_forgets_nothing(engine, ids, logits_TV):
    engine.step([Row(0, ids[:20], "none")])
    engine.truncate(0, 40)
    close(engine.step([everything(0, ids[20:])]), logits_TV[20:])


def test_truncating_a_free_slot_does_nothing(engine, ids, logits_TV):
    engine.truncate(3, 0)
    close(engine.step([everything(3, ids)]), logits_TV)


def test_a_freed_slot_starts_anew(engine, ids, logits_TV):
    engine.step([Row(0, ids[::-1], "none")])
    engine.truncate(0, 0)
    close(engine.step([everything(0, ids)]), logits_TV)


# --- batches change nothing ---


def test_unequal_prompts_in_a_batch_are_as_one_by_one(engine, open_engine, tiny_checkpoint, ids):
    prompts = [ids[:5], ids[5:35], ids[3:4], ids[8:13]]
    together_RV = engine.step([Row(slot, prompt) for slot, prompt in enumerate(prompts)])
    alone_RV = [open_engine(tiny_checkpoint, slots=1).step([Row(0, prompt)])[0] for prompt in prompts]
    if engine.exact_in_batches:
        np.testing.assert_array_equal(together_RV, alone_RV)
    else:
        close(together_RV, alone_RV)


def test_slots_of_unequal_length_go_on_together(engine, ids, logits_TV):
    lengths = [5, 30, 1, 17]
    engine.step([Row(slot, ids[:length], "none") for slot, length in enumerate(lengths)])
    close(engine.step([Row(slot, ids[length : length + 1]) for slot, length in enumerate(lengths)]), logits_TV[lengths])


def test_a_neighbour_that_leaves_changes_nothing(engine, ids, logits_TV):
    engine.step([Row(slot, ids[slot : slot + 10], "none") for slot in (1, 2, 3, 0)])
    engine.truncate(1, 0)
    engine.truncate(2, 0)
    close(engine.step([everything(0, ids[10:])]), logits_TV[10:])


def test_a_neighbour_that_comes_changes_nothing(engine, ids, logits_TV):
    engine.step([Row(2, ids[:10], "none")])
    found_RV = engine.step([everything(0, ids[::-1]), everything(2, ids[10:])])
    close(found_RV[56:], logits_TV[10:])


def test_slots_that_write_and_slots_that_begin_think_together(engine, ids, logits_TV):
    engine.step([Row(0, ids[:9], "none"), Row(3, ids[:30], "none")])
    rows = [Row(3, ids[30:31]), Row(1, ids[:20]), Row(0, ids[9:10]), Row(2, ids[:20])]
    close(engine.step(rows), logits_TV[[30, 19, 9, 19]])


def test_slots_that_write_pass_by_those_that_rest(engine, ids, logits_TV):
    engine.step([Row(slot, ids[:10], "none") for slot in range(4)])
    for at in range(10, 55):
        engine.step([Row(slot, ids[at : at + 1], "none") for slot in (1, 3)])
    close(engine.step([Row(1, ids[55:]), Row(3, ids[55:])]), logits_TV[[55, 55]])
    close(engine.step([everything(0, ids[10:]), everything(2, ids[10:])]), np.concatenate([logits_TV[10:]] * 2))


# --- sharing a beginning ---


@pytest.mark.parametrize("length", [1, 10, 20])
def test_a_shared_beginning_is_as_one_thought_anew(engine, ids, logits_TV, length):
    engine.step([Row(0, ids[:20], "none")])
    engine.share(0, 2, length)
    close(engine.step([everything(2, ids[length:])]), logits_TV[length:])


def test_the_source_of_a_shared_beginning_goes_its_own_way(engine, ids, logits_TV):
    engine.step([Row(0, ids[:20], "none")])
    engine.share(0, 1, 20)
    engine.step([Row(1, ids[::-1][:30], "none")])
    close(engine.step([everything(0, ids[20:])]), logits_TV[20:])


def test_a_shared_beginning_outlives_its_source(engine, ids, logits_TV):
    engine.step([Row(0, ids[:20], "none")])
    engine.share(0, 1, 20)
    engine.truncate(0, 0)
    engine.step([Row(0, ids[::-1], "none")])
    close(engine.step([everything(1, ids[20:])]), logits_TV[20:])


# --- which logits come back ---


def test_logits_come_in_the_order_of_the_rows(engine, stored):
    first, second = stored["tokens_1"].tolist()
    rows = [Row(3, second, "last"), Row(0, [1, 2, 3], "none"), Row(2, first, "all")]
    close(engine.step(rows), np.concatenate([stored["logits_1"][1, -1:], stored["logits_1"][0]]))


def test_the_last_position_is_asked_for_by_default(engine, stored):
    first, second = stored["tokens_1"].tolist()
    close(engine.step([Row(1, first), Row(0, second)]), stored["logits_1"][:, -1])


def test_all_means_all_new_positions(engine, ids, logits_TV):
    engine.step([Row(0, ids[:50], "none")])
    close(engine.step([everything(0, ids[50:])]), logits_TV[50:])


def test_a_step_that_asks_for_nothing_gives_nothing(engine, ids):
    assert engine.step([Row(0, ids, "none"), Row(1, ids, "none")]).shape == (0, 320)


# --- limits ---


def test_the_whole_window_can_be_used(engine, ids, logits_TV):
    engine.step([Row(0, ids[:55], "none")])
    close(engine.step([Row(0, ids[55:])]), logits_TV[55:])


@pytest.mark.parametrize("row", [Row(0, [1] * 57), Row(0, []), Row(8, [1])], ids=["too long", "empty", "no such slot"])
def test_a_mistake_of_the_caller_is_noticed(engine, row):
    with pytest.raises(AssertionError):
        engine.step([row])


# --- around a network that is being trained ---


@pytest.fixture
def network(tiny_checkpoint):
    return to_network(tiny_checkpoint.config, tiny_checkpoint.tensors, dropout=0.5).eval()


@pytest.mark.parametrize("recompute", [False, True])
def test_around_a_network_it_thinks_as_any_engine(network, ids, logits_TV, recompute):
    network.recompute = recompute
    engine = TorchEngine.around(network, slots=1)
    close(engine.step([everything(0, ids[:30])]).copy(), logits_TV[:30])
    close(engine.step([everything(0, ids[30:])]), logits_TV[30:])


def test_around_a_network_it_leaves_it_as_it_was(network, ids):
    def looks(weight):
        return weight, weight.data_ptr(), weight.stride(), weight.requires_grad, weight.grad, weight.detach().clone()

    before = [looks(weight) for weight in network.parameters()]
    TorchEngine.around(network, slots=BATCH_SLOTS).step([Row(0, ids)])
    for (weight, *same, values), other in zip(before, network.parameters(), strict=True):
        assert weight is other
        assert same == list(looks(other)[1:-1])
        assert values.equal(other)


def test_the_network_learns_on_after_an_engine_was_around_it(network, ids):
    TorchEngine.around(network, slots=1).step([Row(0, ids)])
    network(torch.tensor([ids])).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_an_engine_sees_what_its_network_has_learnt_since(network, ids, logits_TV):
    engine = TorchEngine.around(network, slots=1)
    with torch.no_grad():
        network.ln_f.weight.zero_()
        network.ln_f.bias.zero_()
    assert not engine.step([Row(0, ids)]).any()
    assert logits_TV.any()


# --- any order of use ---

SLOTS = 4
WANTED = st.sampled_from(["none", "last", "all"])


def some_ids(most):
    return st.lists(st.integers(0, 319), min_size=1, max_size=most)


@st.composite
def uses(draw):
    """A random life of an engine: steps of some slots, truncations, freed slots, shared beginnings; all allowed."""
    lengths, life = dict.fromkeys(range(SLOTS), 0), []
    for _ in range(draw(st.integers(1, 12))):
        used = [slot for slot, length in lengths.items() if length]
        free = [slot for slot, length in lengths.items() if not length]
        kind = draw(st.sampled_from(["step", "step", "truncate", "share"]))
        if kind == "share" and used and free:
            source, target = draw(st.sampled_from(used)), draw(st.sampled_from(free))
            lengths[target] = draw(st.integers(1, lengths[source]))
            life.append(("share", source, target, lengths[target]))
        elif kind == "truncate" and used:
            slot = draw(st.sampled_from(used))
            lengths[slot] = draw(st.sampled_from([0, lengths[slot] // 2]))
            life.append(("truncate", slot, lengths[slot]))
        elif rooms := {slot: 56 - length for slot, length in lengths.items() if length < 56}:
            slots = draw(st.lists(st.sampled_from(sorted(rooms)), min_size=1, unique=True))
            most = draw(st.sampled_from([1, 20]))
            new = {slot: draw(some_ids(min(rooms[slot], most))) for slot in slots}
            life.append(("step", [Row(slot, new[slot], draw(WANTED)) for slot in slots]))
            lengths |= {slot: lengths[slot] + len(new[slot]) for slot in slots}
    return life


@pytest.mark.slow
@pytest.mark.parametrize("contender", [TorchEngine])
@given(life=uses())
@settings(max_examples=60)
def test_any_use_gives_what_the_reference_gives(tiny_checkpoint, contender, life):
    engine, judge = contender(tiny_checkpoint, SLOTS), ReferenceEngine(tiny_checkpoint, SLOTS)
    for kind, *details in life:
        found, expected = getattr(engine, kind)(*details), getattr(judge, kind)(*details)
        if kind == "step":
            close(found, expected)
