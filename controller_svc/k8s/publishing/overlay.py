"""An object of somebody else's kind, changed where SEAL has something to say and nowhere else.

KServe and whoever runs the service set fields of their own: defaults, replicas, a service account.
They stay. So the object is written only if it does not hold what is wanted, and then what is wanted
is laid over it; what SEAL may set and does not want any more is taken out before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from seal.yaml_files import Tree

Path = tuple[str, ...]
"""Names of fields from the root; of a list of `_BY_NAME` the entry's name follows."""
_BY_NAME = frozenset({"containers"})
"""Lists whose entries are known by name."""


def changed(found: Tree, wanted: Tree, *, owned: Iterable[Path]) -> Tree | None:
    """The object with what is wanted laid over it; None if it holds that already.

    `owned`: paths of fields that are SEAL's, also where it wants none of them.
    """
    if _holds(found, wanted):
        return None
    cleared = found
    for path in owned:
        cleared = _without(cleared, path)
    return _laid_over(cleared, wanted)


def _holds(found: object, wanted: object) -> bool:
    if not isinstance(wanted, Mapping):
        return found == wanted
    return isinstance(found, Mapping) and all(
        key in found and _holds(_entries(key, found[key]), _entries(key, value))
        for key, value in wanted.items()
    )


def _entries(key: str, value: object) -> object:
    """A list whose entries are known by name, by that."""
    if key not in _BY_NAME or not isinstance(value, list):
        return value
    return {str(entry.get("name")): entry for entry in cast("list[Tree]", value)}


def _listed(key: str, value: object) -> object:
    """The inverse of `_entries`."""
    return list(value.values()) if key in _BY_NAME and isinstance(value, dict) else value


def _without(below: Tree, path: Path) -> Tree:
    key, *rest = path
    if not rest:
        return {name: value for name, value in below.items() if name != key}
    there = _entries(key, below.get(key))
    if not isinstance(there, dict):
        return below
    return below | {key: _listed(key, _without(there, tuple(rest)))}


def _laid_over(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        there, over = _entries(key, merged.get(key)), _entries(key, value)
        both = isinstance(there, dict) and isinstance(over, dict)
        laid = _laid_over(cast("Tree", there), cast("Tree", over)) if both else over
        merged[key] = _listed(key, laid)
    return merged
