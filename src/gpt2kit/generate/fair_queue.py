"""Who is next: every group of waiting entries in turn, and within a group who came first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")


class FairQueue(Generic[Key, Entry]):
    """A thousand entries of one group keep nobody of another waiting for more than one of them.

    All calls but `ahead_of` are O(1).
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, OrderedDict[Key, Entry]] = OrderedDict()
        self._group_of: dict[Key, Hashable] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, key: Key) -> bool:
        return key in self._group_of

    def put(self, key: Key, entry: Entry, group: Hashable) -> None:
        """Queue an entry; a group without entries joins behind the others."""
        self._groups.setdefault(group, OrderedDict())[key] = entry
        self._group_of[key] = group

    def first(self) -> tuple[Key, Entry]:
        """The next entry, which stays."""
        return next(iter(next(iter(self._groups.values())).items()))

    def ahead_of(self, key: Key) -> int:
        """How many entries come out before this one, if none is put in or removed."""
        own = self._group_of[key]
        rounds = list(self._groups[own]).index(key)
        others = [len(entries) for group, entries in self._groups.items() if group != own]
        earlier = list(self._groups).index(own)  # these groups have their turn before, in every round
        return rounds + sum(min(count, rounds + (place < earlier)) for place, count in enumerate(others))

    def pop(self) -> None:
        """Take the next entry out; its group goes behind the others."""
        key, _ = self.first()
        self._groups.move_to_end(self._group_of[key])
        self.remove(key)

    def remove(self, key: Key) -> None:
        """Take out any entry."""
        group = self._group_of.pop(key)
        del self._groups[group][key]
        if not self._groups[group]:
            del self._groups[group]
