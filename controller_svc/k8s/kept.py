"""What is made of objects once for each of their versions, as it is asked for at each look."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values of the newest versions, by uid; those that nobody has asked for go first."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: values that are kept; the others are made again when asked for."""
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[object, Value]] = OrderedDict()

    def get(self, uid: str, version: object, make: Callable[[], Value]) -> Value:
        """The value of a version. Raises what `make` raises; nothing is kept then."""
        known = self._kept.pop(uid, None)
        if known is None or known[0] != version:
            known = version, make()
        self._kept[uid] = known
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return known[1]
