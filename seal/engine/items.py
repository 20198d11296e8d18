"""The items of one request, each looked at, so that all that are at fault are named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from seal.errors import UnfitItem

Item = TypeVar("Item")
Made = TypeVar("Made")


def each(field: str, items: Iterable[Item], make: Callable[[Item], Made]) -> list[Made]:
    """What `make` makes of every item.

    Raises the UnfitItem of the first item for which `make` raises one, with the places of all items
    that have the same outcome: a caller who leaves them out need not ask again for each of them.
    """
    made: list[Made] = []
    unfit: dict[int, UnfitItem] = {}
    for place, item in enumerate(items):
        try:
            made.append(make(item))
        except UnfitItem as error:
            unfit[place] = error
    if not unfit:
        return made
    first, fault = next(iter(unfit.items()))
    raise UnfitItem(
        fault.message,
        outcome=fault.outcome,
        field=fault.field or f"{field}[{first}]",
        remedy=fault.remedy,
        places=[place for place, other in unfit.items() if other.outcome is fault.outcome],
    )
