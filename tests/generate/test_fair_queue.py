from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.generate.fair_queue import FairQueue


class PlainQueue:
    """The same, said plainly: a list of groups in turn, each a list of keys."""

    def __init__(self):
        self.groups = deque()

    def put(self, key, group):
        for name, keys in self.groups:
            if name == group:
                return keys.append(key)
        self.groups.append((group, [key]))

    def pop(self):
        name, keys = self.groups.popleft()
        key = keys.pop(0)
        if keys:
            self.groups.append((name, keys))
        return key

    def remove(self, key):
        for _, keys in self.groups:
            if key in keys:
                keys.remove(key)
        self.groups = deque((name, keys) for name, keys in self.groups if keys)

    def order(self):
        rest = PlainQueue()
        rest.groups = deque((name, list(keys)) for name, keys in self.groups)
        return [rest.pop() for _ in self.waiting()]

    def waiting(self):
        return {key for _, keys in self.groups for key in keys}


def test_an_entry_comes_out_with_its_key():
    queue = FairQueue()
    queue.put("key", "entry", "group")
    assert queue.first() == ("key", "entry")
    assert len(queue) == 1
    queue.pop()
    assert not queue


@given(st.lists(st.tuples(st.sampled_from(["put", "put", "pop", "remove"]), st.integers(0, 3)), max_size=60))
def test_any_use_is_as_with_the_plain_queue(deeds):
    queue, plain = FairQueue(), PlainQueue()
    for number, (deed, choice) in enumerate(deeds):
        waiting = sorted(plain.waiting())
        if deed == "put":
            queue.put(number, None, choice)
            plain.put(number, choice)
        elif waiting and deed == "pop":
            key, _ = queue.first()
            queue.pop()
            assert key == plain.pop()
        elif waiting:
            queue.remove(waiting[choice % len(waiting)])
            plain.remove(waiting[choice % len(waiting)])
        order = plain.order()
        assert [queue.ahead_of(key) for key in order] == list(range(len(order)))
        assert len(queue) == len(plain.waiting())
        assert all((key in queue) == (key in plain.waiting()) for key in range(number + 1))
