import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.data.batches import IGNORED, Corpus, batch_at, consecutive_batches, hold_out, shuffled, with_noise


@dataclass
class Counting:
    """Tokens whose ids count up, so that an id tells its own place; as many as anybody likes."""

    total: int
    ends: np.ndarray | None = None

    def take(self, positions):
        assert positions.min() >= 0
        assert positions.max() < self.total
        return positions.astype(np.int64)


def corpus_of(total, window, spans=None):
    return Corpus(Counting(total), np.array(spans or [[0, total]], np.int64), window)


THOUSAND = corpus_of(1000, window=7)
SEEDS = st.integers(0, 2**64 - 1)
STEPS = st.integers(0, 2**40)


def starts_of(corpus, seed, step, size):
    return batch_at(corpus, seed, step, size).inputs_BT[:, 0]


# --- one step ---


@given(seed=SEEDS, step=STEPS)
def test_a_step_draws_the_same_windows_whenever_it_is_asked(seed, step):
    first, later = batch_at(THOUSAND, seed, step, 4), batch_at(THOUSAND, seed, step, 4)
    np.testing.assert_array_equal(first.inputs_BT, later.inputs_BT)


@given(seed=SEEDS, step=STEPS)
def test_a_window_is_a_stretch_of_the_text(seed, step):
    inputs_BT = batch_at(THOUSAND, seed, step, 4).inputs_BT
    assert inputs_BT.shape == (4, 7)
    assert (np.diff(inputs_BT, axis=1) == 1).all()


@given(seed=SEEDS, step=STEPS)
def test_targets_are_the_ids_one_further(seed, step):
    batch = batch_at(THOUSAND, seed, step, 4)
    assert batch.inputs_BT.dtype == batch.targets_BT.dtype == np.int64
    np.testing.assert_array_equal(batch.targets_BT, batch.inputs_BT + 1)


@given(seed=SEEDS, step=STEPS, parts=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_parts_are_slices_of_the_whole_step(seed, step, parts):
    slices = [batch_at(THOUSAND, seed, step, 12, part, parts) for part in range(parts)]
    whole = batch_at(THOUSAND, seed, step, 12)
    np.testing.assert_array_equal(np.concatenate([piece.inputs_BT for piece in slices]), whole.inputs_BT)
    assert {piece.inputs_BT.shape[0] for piece in slices} == {12 // parts}


def test_unequal_parts_are_our_own_mistake():
    with pytest.raises(AssertionError, match="10 windows cannot be cut into 3"):
        batch_at(THOUSAND, 0, 0, 10, 0, 3)


def test_a_window_may_fill_the_text():
    batch = batch_at(corpus_of(3, window=2), 0, 0, 1)
    assert (batch.inputs_BT.tolist(), batch.targets_BT.tolist()) == ([[0, 1]], [[1, 2]])


# --- passes ---


@given(total=st.integers(2, 2000), window=st.integers(1, 30), seed=SEEDS, number=st.integers(0, 2**30))
def test_a_pass_reads_every_window_once_on_a_lattice(total, window, seed, number):
    corpus = corpus_of(total, min(window, total - 1))
    starts = np.sort(starts_of(corpus, seed, number, corpus.windows))
    assert (np.diff(starts) == corpus.window).all()


@given(total=st.integers(2, 2000), window=st.integers(1, 30))
def test_a_pass_leaves_out_two_windows_of_the_text_at_most(total, window):
    """Brute force: as many windows with their last target as fit side by side, but one, and never none."""
    window = min(window, total - 1)
    fitting = len([start for start in range(0, total, window) if start + window + 1 <= total])
    assert corpus_of(total, window).windows == max(1, fitting - 1)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("size", [1, 3, 7, 20, 33, 50])
def test_batches_of_any_size_cut_the_same_stream_of_windows(seed, size):
    """20 windows a pass; steps that reach from one pass into the next, or over several, are nothing special."""
    corpus = corpus_of(148, window=7)
    assert corpus.windows == 20
    stream = np.concatenate([starts_of(corpus, seed, number, 20) for number in range(5)])
    cut = np.concatenate([starts_of(corpus, seed, step, size) for step in range(-(-100 // size))])
    np.testing.assert_array_equal(cut[:100], stream)


def test_every_pass_and_every_seed_has_an_order_of_its_own():
    orders = {tuple(starts_of(THOUSAND, seed, number, 141) // 7) for seed in range(20) for number in range(20)}
    assert len(orders) == 400


def test_passes_are_cut_at_other_places_so_that_every_id_is_learnt_sometime():
    corpus = corpus_of(29, window=7)
    batches = [batch_at(corpus, 0, number, corpus.windows) for number in range(200)]
    assert {batch.inputs_BT.min() for batch in batches} == set(range(8))
    assert max(batch.targets_BT.max() for batch in batches) == 28


def test_large_seeds_are_told_apart():
    assert len({tuple(starts_of(THOUSAND, seed, 0, 9)) for seed in (0, 2**63, 2**63 + 1, 2**64 - 1)}) == 4


@given(count=st.integers(1, 5000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@settings(max_examples=60)
def test_shuffling_moves_every_place_to_another_one(count, keys):
    found = shuffled(np.arange(count), count, np.array(keys, np.uint64))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("count", [4**n + extra for n in range(6) for extra in (-1, 0, 1) if 4**n + extra])
def test_shuffling_holds_where_the_network_grows(count):
    found = shuffled(np.arange(count), count, np.arange(6, dtype=np.uint64))
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 5, 10])
def test_a_place_goes_everywhere_equally_often(place):
    """11 places, 5500 orders: each target comes some 500 times; above 29.6 is 1 chi-square in 1000 (10 degrees)."""
    draws = np.random.default_rng(0)
    keys = [draws.integers(0, 2**64, 6, np.uint64) for _ in range(5500)]
    counts = np.bincount([shuffled(np.array([place]), 11, key)[0] for key in keys], minlength=11)
    assert ((counts - 500) ** 2 / 500).sum() < 29.6


def test_neighbours_do_not_stay_neighbours():
    """In a random order of 141 places, two neighbours stay so in 1 of 70 cases."""
    orders = [starts_of(THOUSAND, seed, 0, 141) // 7 for seed in range(50)]
    assert np.mean([np.abs(np.diff(order)) == 1 for order in orders]) == pytest.approx(2 / 141, rel=0.2)


def test_a_step_of_an_endless_text_costs_no_more_memory():
    corpus = corpus_of(10**15, window=16)
    batch_at(corpus, 3, 2**40, 8)
    tracemalloc.start()
    starts_of(corpus, 3, 2**40, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


# --- parts of the text ---


@st.composite
def spans(draw, total=300):
    """Ascending parts of the text, which may touch, with at least 2 ids in all."""
    borders = sorted(draw(st.lists(st.integers(0, total), min_size=2, max_size=12, unique=True)))
    parts = [list(pair) for pair in pairwise(borders) if draw(st.booleans())]
    return parts if sum(end - start for start, end in parts) > 1 else [[3, 90], [100, 102]]


def brute_force(parts):
    return np.concatenate([np.arange(start, end) for start, end in parts])


@given(parts=spans())
def test_parts_are_read_as_one_text(parts):
    corpus, whole = corpus_of(300, 1, parts), brute_force(parts)
    assert corpus.total == whole.size
    np.testing.assert_array_equal(corpus.take(np.arange(whole.size)), whole)


@given(parts=spans(), window=st.integers(1, 20), seed=SEEDS, step=st.integers(0, 1000))
def test_windows_go_over_the_borders_of_parts(parts, window, seed, step):
    text = brute_force(parts)
    window = min(window, text.size - 1)
    places_BT = batch_at(corpus_of(text.size, window), seed, step, 4).inputs_BT
    np.testing.assert_array_equal(batch_at(corpus_of(300, window, parts), seed, step, 4).inputs_BT, text[places_BT])


# --- validation ---


@given(parts=spans(), window=st.integers(1, 400), size=st.integers(1, 5))
def test_every_id_but_the_first_is_judged_once_and_in_order(parts, window, size):
    batches = list(consecutive_batches(corpus_of(300, window, parts), size))
    targets = np.concatenate([batch.targets_BT.flatten() for batch in batches])
    np.testing.assert_array_equal(targets[targets != IGNORED], brute_force(parts)[1:])


@given(parts=spans(), window=st.integers(1, 400), size=st.integers(1, 5))
def test_whatever_is_judged_follows_its_input(parts, window, size):
    text = brute_force(parts)
    following = dict(pairwise(text.tolist()))
    for batch in consecutive_batches(corpus_of(300, window, parts), size):
        judged = batch.targets_BT != IGNORED
        expected = [following[id] for id in batch.inputs_BT[judged].tolist()]
        assert batch.targets_BT[judged].tolist() == expected


def test_the_last_window_is_filled_up_with_what_carries_no_loss():
    *_, last = consecutive_batches(corpus_of(8, window=5), 3)
    assert last.targets_BT.tolist() == [[1, 2, 3, 4, 5], [6, 7, -100, -100, -100]]
    assert last.inputs_BT[1, :2].tolist() == [5, 6]


def test_consecutive_batches_hold_at_most_size_windows():
    shapes = [batch.inputs_BT.shape for batch in consecutive_batches(corpus_of(71, window=10), 3)]
    assert shapes == [(3, 10), (3, 10), (1, 10)]


# --- holding out ---


def documents(*lengths):
    return Counting(sum(lengths), np.cumsum(lengths, dtype=np.int64))


def places_of(parts):
    return [place for start, end in parts.tolist() for place in range(start, end)]


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
SHARES = st.floats(0, 0.9)


@given(lengths=LENGTHS, share=SHARES)
def test_what_is_learnt_and_what_is_held_out_are_the_text_without_overlap(lengths, share):
    learnt, held_out = hold_out(documents(*lengths), share)
    assert sorted(places_of(learnt) + places_of(held_out)) == list(range(sum(lengths)))


@given(lengths=LENGTHS, share=SHARES)
def test_no_more_is_held_out_than_the_share(lengths, share):
    _, held_out = hold_out(documents(*lengths), share)
    assert len(places_of(held_out)) <= round(share * sum(lengths))


@pytest.mark.slow
@given(lengths=st.lists(st.integers(1, 20), min_size=50, max_size=80), share=st.floats(0.8, 0.9))
def test_small_documents_are_held_out_whole_and_at_least_half_the_share(lengths, share):
    """Of documents of at most half the share, so many fit."""
    tokens = documents(*lengths)
    _, held_out = hold_out(tokens, share)
    borders = {0, *tokens.ends.tolist()}
    assert {border for part in held_out.tolist() for border in part} <= borders
    assert len(places_of(held_out)) >= share * tokens.total / 2


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_equal_documents_are_held_out_by_the_share(share):
    _, held_out = hold_out(documents(*[10] * 200), share)
    assert len(places_of(held_out)) == 2000 * share


@given(lengths=LENGTHS, share=SHARES)
def test_neighbours_are_one_part(lengths, share):
    for parts in hold_out(documents(*lengths), share):
        assert all(end < start for (_, end), (start, _) in pairwise(parts.tolist()))


def test_documents_are_chosen_from_everywhere():
    _, held_out = hold_out(documents(*[10] * 1000), 0.1)
    tenths = np.bincount(np.array(places_of(held_out)) // 1000, minlength=10)
    assert tenths.min() > 30


@pytest.mark.parametrize(("share", "held"), [(0.1, 10), (0.5, 50), (0.999, 99), (0.004, 0)])
def test_of_a_single_document_the_end_is_held_out(share, held):
    learnt, held_out = hold_out(documents(100), share)
    assert (places_of(learnt), places_of(held_out)) == (list(range(100 - held)), list(range(100 - held, 100)))


def test_of_a_book_among_notes_the_end_is_held_out():
    """The notes, 30 ids in all, are less than half of the 103 wanted."""
    learnt, held_out = hold_out(documents(*[3] * 5, 1000, *[3] * 5), 0.1)
    assert held_out.tolist() == [[912, 1015]]
    assert learnt.tolist() == [[0, 912], [1015, 1030]]


def test_a_book_among_many_pages_stays_whole():
    _, held_out = hold_out(documents(*[30] * 20, 500, *[30] * 20), 0.1)
    assert not set(places_of(held_out)) & set(range(600, 1100))
    assert 150 <= len(places_of(held_out)) <= 170


@pytest.mark.parametrize("lengths", [[100], [10] * 10, [1, 99]])
def test_a_share_of_0_holds_out_nothing(lengths):
    learnt, held_out = hold_out(documents(*lengths), 0.0)
    assert (learnt.tolist(), held_out.shape) == ([[0, 100]], (0, 2))


def test_what_is_held_out_depends_on_nothing_but_the_text_and_the_share():
    first = hold_out(documents(*range(1, 90)), 0.2)
    np.random.seed(7)
    for parts, again in zip(first, hold_out(documents(*range(1, 90)), 0.2), strict=True):
        np.testing.assert_array_equal(parts, again)


# --- noise ---


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_noise_is_the_same_however_a_step_is_cut(parts):
    ids_BT = np.arange(4 * 50).reshape(4, 50)
    whole = with_noise(ids_BT, 0.4, 1000, 7, first_window=12)
    size = 4 // parts
    cut = [with_noise(ids_BT[n : n + size], 0.4, 1000, 7, first_window=12 + n) for n in range(0, 4, size)]
    np.testing.assert_array_equal(np.concatenate(cut), whole)


def test_noise_replaces_its_share_with_ids_of_all_kinds():
    ids_BT = np.full((50, 1000), 5)
    noisy_BT = with_noise(ids_BT, 0.3, 10, 0, first_window=0)
    assert (ids_BT == 5).all(), "what was given is left alone"
    assert (noisy_BT != 5).mean() == pytest.approx(0.3 * 0.9, abs=0.01)  # a tenth is replaced by itself
    counts = np.bincount(noisy_BT[noisy_BT != 5], minlength=10)
    assert np.delete(counts, 5) == pytest.approx(np.full(9, counts.sum() / 9), rel=0.1)


@pytest.mark.parametrize("change", [{"seed": 8}, {"first_window": 13}], ids=str)
def test_noise_differs_from_seed_to_seed_and_from_window_to_window(change):
    ids_BT = np.zeros((1, 100), int)
    one = with_noise(ids_BT, 0.5, 1000, **{"seed": 7, "first_window": 12})
    other = with_noise(ids_BT, 0.5, 1000, **{"seed": 7, "first_window": 12, **change})
    assert (one != other).any()


# --- some of all windows ---


@pytest.mark.parametrize(
    ("windows", "numbers"), [(1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (10, range(10)), (99, range(10))]
)
def test_some_windows_are_spread_evenly(windows, numbers):
    batches = consecutive_batches(corpus_of(101, window=10), 3, windows)
    starts = [start for batch in batches for start in batch.inputs_BT[:, 0]]
    every = [start for batch in consecutive_batches(corpus_of(101, window=10), 3) for start in batch.inputs_BT[:, 0]]
    assert starts == [every[number] for number in numbers]
