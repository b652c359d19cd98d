import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.generate.slots import Slots, shared_length


class Memory:
    """The part of an engine that remembers; `copied` counts what was copied from slot to slot."""

    def __init__(self, slots, capacity):
        self.slots, self.capacity = slots, capacity
        self.held = [[] for _ in range(slots)]
        self.copied = []

    def truncate(self, slot, length):
        del self.held[slot][length:]

    def share(self, source, target, length):
        assert not self.held[target]
        self.held[target] = self.held[source][:length]
        self.copied.append((source, target, length))


def slots_that_hold(*texts, capacity=1000, free=0):
    """Finished sequences have left these texts, the first of them longest ago; `free` more slots are empty."""
    memory = Memory(len(texts) + free, capacity)
    slots = Slots(memory)
    taken = [slots.take([-1], len(text)) for text in texts]
    assert taken == list(range(len(texts)))
    for slot, text in enumerate(texts):
        memory.held[slot] += text
        slots.held[slot] += text
        slots.leave(slot)
    return slots, memory


ONE, OTHER = list(range(100, 130)), list(range(200, 230))


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([1, 2, 3], [1, 5, 3], 1)],
)
def test_two_texts_share_what_both_begin_with(one, other, length):
    assert shared_length(one, other) == length


# --- which slot ---


def test_an_empty_slot_is_taken_before_one_that_may_be_of_use():
    slots, memory = slots_that_hold(ONE, free=1)
    assert slots.take(OTHER, 40) == 1
    slots.leave(1)  # unread: its request was cancelled
    assert slots.take(OTHER, 40) == 1
    assert memory.held[0] == ONE


def test_of_full_slots_the_one_left_longest_ago_is_taken_and_emptied():
    slots, memory = slots_that_hold(ONE, OTHER[:20])
    assert slots.take([1, 2, 3], 40) == 0
    assert memory.held == [[], OTHER[:20]]


def test_a_text_that_goes_on_keeps_its_slot():
    slots, memory = slots_that_hold(ONE, OTHER, free=1)
    assert slots.take([*OTHER, 1, 2], 40) == 1
    assert memory.held == [ONE, OTHER, []]


def test_the_same_prompt_again_keeps_all_but_its_last_id():
    """The last is read anew, for its logits."""
    slots, memory = slots_that_hold(ONE, OTHER)
    assert slots.take(OTHER, 40) == 1
    assert memory.held == [ONE, OTHER[:-1]] == slots.held


@pytest.mark.parametrize(("kept", "slot"), [(15, 0), (14, 1)])
def test_a_slot_is_taken_over_where_no_more_is_lost_than_kept(kept, slot):
    slots, memory = slots_that_hold(ONE, free=1)
    assert slots.take([*ONE[:kept], 1, 2], 40) == slot
    assert memory.held[0] == (ONE[:kept] if slot == 0 else ONE)


@pytest.mark.parametrize(("common", "kept"), [(9, 9), (8, 8), (7, 0)])
def test_the_only_slot_keeps_what_is_worth_it_however_much_is_lost(common, kept):
    slots, memory = slots_that_hold(ONE)
    assert slots.take([*ONE[:common], 1, 2], 40) == 0
    assert memory.held == [ONE[:kept]] == slots.held


def test_a_short_text_in_common_is_not_worth_a_full_slot():
    slots, memory = slots_that_hold(ONE[:7], free=1)
    assert slots.take([*ONE[:7], 1, 2], 40) == 1
    assert memory.held[0] == ONE[:7]


# --- whether there is room ---


def test_no_slot_is_given_twice():
    slots = Slots(Memory(2, 1000))
    assert {slots.take(ONE, 40), slots.take(ONE, 40)} == {0, 1}
    assert slots.take(ONE, 40) is None


def test_what_is_reserved_may_fill_the_memory_and_no_more():
    slots = Slots(Memory(3, 100))
    assert slots.take(ONE, 60) is not None
    assert slots.take(ONE, 41) is None
    assert slots.take(ONE, 40) is not None


def test_what_was_left_makes_room():
    slots = Slots(Memory(2, 100))
    slots.leave(slots.take(ONE, 90))
    assert slots.take(OTHER, 90) is not None


def test_who_is_alone_gets_a_slot_in_any_case():
    slots = Slots(Memory(2, 10))
    assert slots.take(ONE, 40) is not None
    assert slots.take([1], 1) is None


def test_finished_texts_are_forgotten_only_for_want_of_room_and_the_oldest_first():
    """90 ids are left in slots, 130 are needed: the first must go, for exactly 190 then fit."""
    slots, memory = slots_that_hold(ONE, OTHER, ONE[::-1], free=1, capacity=190)
    assert slots.take([1, 2], 130) == 3
    assert memory.held == [[], OTHER, ONE[::-1], []] == slots.held


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 3), st.lists(st.sampled_from([1, 1, 2]), min_size=1), st.integers(0, 20)
        )
    )
)
def test_memory_is_never_overdrawn_by_two(deeds):
    memory = Memory(4, 60)
    slots, used = Slots(memory), {}
    for leave, choice, ids, growth in deeds:
        if leave and used:
            slots.leave(slot := sorted(used)[choice % len(used)])
            del used[slot]
        elif (slot := slots.take(ids, len(ids) + growth)) is not None:
            used[slot] = len(ids) + growth
            grown = (ids + [3] * growth)[len(memory.held[slot]) :]
            memory.held[slot] += grown
            slots.held[slot] += grown
        assert memory.held == slots.held
        # Who is alone may have more than there is, and leave that behind for the next to clear away.
        assert len(used) <= 1 or sum(map(len, memory.held)) <= 60
        assert len(used) <= 1 or sum(used.values()) <= 60


# --- beginnings that can be used again ---


def test_the_longest_beginning_is_found_in_any_slot():
    slots, _ = slots_that_hold(ONE[:10], ONE[:20], [*ONE[:15], *OTHER])
    assert slots.longest_beginning([*ONE[:19], 1]) == (1, 19)
    assert slots.longest_beginning(OTHER) == (-1, 0)
    assert slots.longest_beginning([]) == (-1, 0)


def test_a_beginning_is_copied_over_whatever_the_slot_held():
    slots, memory = slots_that_hold(ONE, free=1)
    slot = slots.take(OTHER, 40)
    memory.held[slot] += OTHER
    slots.held[slot] += OTHER
    slots.share(0, slot, 12)
    assert memory.copied == [(0, slot, 12)]
    assert memory.held == [ONE, ONE[:12]] == slots.held


def test_idle_slots_can_be_forgotten_and_those_in_use_stay():
    slots, memory = slots_that_hold(ONE, OTHER)
    slots.take([*OTHER, 1], 40)
    slots.forget()
    assert memory.held == [[], OTHER] == slots.held


def test_after_a_reset_all_is_free_and_empty():
    slots, memory = slots_that_hold(ONE, OTHER, capacity=100)
    slots.take([*OTHER, 1], 90)
    memory.held[1].append(77)  # the engine may hold what nobody knows of
    slots.reset()
    assert memory.held == [[], []] == slots.held
    assert [slots.take(ONE, 50), slots.take(OTHER, 50)] == [0, 1]


def test_whoever_takes_over_an_engine_finds_its_slots_empty():
    _, memory = slots_that_hold(ONE, OTHER)
    Slots(memory)
    assert memory.held == [[], []]
