import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.data.batches import Corpus, batch_at, consecutive_batches, hold_out

# Ids count up, so an id tells its own place.
COUNTING = Corpus(np.arange(1000, dtype=np.uint16), window=7)
SEEDS = st.integers(0, 2**63 - 1)
STEPS = st.integers(0, 2**40)


@given(seed=SEEDS, step=STEPS)
def test_a_step_draws_the_same_windows_whenever_it_is_asked(seed, step):
    first, later = batch_at(COUNTING, seed, step, 4), batch_at(COUNTING, seed, step, 4)
    np.testing.assert_array_equal(first.inputs_BT, later.inputs_BT)


@given(seed=SEEDS, step=STEPS)
def test_a_window_is_a_stretch_of_the_text(seed, step):
    inputs_BT = batch_at(COUNTING, seed, step, 4).inputs_BT
    assert inputs_BT.shape == (4, 7)
    assert (np.diff(inputs_BT, axis=1) == 1).all()


@given(seed=SEEDS, step=STEPS)
def test_targets_are_the_ids_one_further(seed, step):
    batch = batch_at(COUNTING, seed, step, 4)
    np.testing.assert_array_equal(batch.targets_BT, batch.inputs_BT + 1)


@given(seed=SEEDS, step=STEPS, parts=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_parts_are_slices_of_the_whole_step(seed, step, parts):
    slices = [batch_at(COUNTING, seed, step, 12, part, parts) for part in range(parts)]
    whole = batch_at(COUNTING, seed, step, 12)
    np.testing.assert_array_equal(np.concatenate([piece.inputs_BT for piece in slices]), whole.inputs_BT)
    assert {piece.inputs_BT.shape[0] for piece in slices} == {12 // parts}


def test_other_steps_and_other_seeds_draw_other_windows():
    draws = {tuple(batch_at(COUNTING, seed, step, 4).inputs_BT[:, 0]) for seed in range(20) for step in range(20)}
    assert len(draws) == 400


def test_large_seeds_are_told_apart():
    draws = {tuple(batch_at(COUNTING, seed, 0, 4).inputs_BT[:, 0]) for seed in (0, 2**63, 2**63 + 1, 2**64 - 1)}
    assert len(draws) == 4


def test_every_place_is_drawn_equally_often():
    """9 places fit a window of 2 into 11 ids; over 9000 draws each comes about 1000 times."""
    corpus = Corpus(np.arange(11, dtype=np.uint16), window=2)
    starts = np.concatenate([batch_at(corpus, 0, step, 90).inputs_BT[:, 0] for step in range(100)])
    counts = np.bincount(starts, minlength=9)
    assert counts.size == 9
    assert ((counts - 1000) ** 2 / 1000).sum() < 26.1  # 8 degrees of freedom: 1 in 1000 is above


def test_the_last_id_can_be_a_target_and_a_window_may_fill_the_text():
    corpus = Corpus(np.array([5, 6, 7], np.uint16), window=2)
    batch = batch_at(corpus, 0, 0, 1)
    assert (batch.inputs_BT.tolist(), batch.targets_BT.tolist()) == ([[5, 6]], [[6, 7]])


def test_ids_come_as_int64_whatever_they_are_stored_as():
    batch = batch_at(Corpus(np.array([65535, 0, 65535], np.uint16), window=2), 0, 0, 1)
    assert batch.inputs_BT.dtype == batch.targets_BT.dtype == np.int64
    assert batch.inputs_BT.tolist() == [[65535, 0]]


def test_unequal_parts_are_our_own_mistake():
    with pytest.raises(AssertionError, match="10 windows cannot be cut into 3"):
        batch_at(COUNTING, 0, 0, 10, 0, 3)


# --- validation ---


@given(length=st.integers(2, 200), window=st.integers(1, 20), size=st.integers(1, 5))
def test_consecutive_windows_judge_every_id_that_fits_a_whole_window_once(length, window, size):
    corpus = Corpus(np.arange(length, dtype=np.uint16), window)
    judged = [id for batch in consecutive_batches(corpus, size) for id in batch.targets_BT.flatten().tolist()]
    whole_windows = (length - 1) // window
    assert judged == list(range(1, whole_windows * window + 1))


def test_consecutive_batches_hold_at_most_size_windows():
    corpus = Corpus(np.arange(71, dtype=np.uint16), window=10)
    assert [batch.inputs_BT.shape for batch in consecutive_batches(corpus, 3)] == [(3, 10), (3, 10), (1, 10)]


# --- holding out ---


@pytest.mark.parametrize(("share", "learnt"), [(0.1, 90), (0.0, 100), (0.5, 50), (0.999, 0), (0.004, 100)])
def test_the_last_share_of_the_text_is_held_out(share, learnt):
    ids = np.arange(100)
    left, held_out = hold_out(ids, share)
    assert (left.tolist(), held_out.tolist()) == (list(range(learnt)), list(range(learnt, 100)))
