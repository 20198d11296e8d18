"""Which adapter applies to which token when nothing is trained.

Tokens of many adapters in any order. The tokens of one adapter form a *group*. A layer gathers them
group by group, padded to the largest group, applies all adapters by two batched products and adds
the result where the tokens lie. With a handful of tokens per group the padding costs nothing beside
the base layer, and the order of rows in the batch is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from seal.engine.linear import Factors
from seal.engine.transfer import to_device

SMALL_GROUP = 8
"""Groups of at most this many tokens are padded to one length without a thought."""
MAX_GROUP_PADDING = 0.5
"""Larger groups share a batched product while the next smaller one is at least this share of the
largest."""


@dataclass(frozen=True)
class AdapterGroups:
    """Finished adapters of a batch, all on one policy.

    Group g's tokens use factors g of each layer.
    """

    groups: int
    """How many there are."""
    factors: Mapping[str, Factors]
    """Layer name -> stacked factors, their scale folded into B; empty when no group has an
    adapter."""
    policy: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    """Layer name -> ((r, in), (out, r) with its scale folded in); empty for the base model."""

    def select(self, groups: Sequence[int]) -> AdapterGroups:
        """A copy of some groups, renumbered in the given order.

        Its factors are contiguous, which batched products need to run well.
        """
        index = to_device(torch.tensor(groups), self._device)
        factors = {
            name: Factors(layer.a[index], layer.b[index]) for name, layer in self.factors.items()
        }
        return AdapterGroups(len(groups), factors, self.policy)

    @property
    def _device(self) -> torch.device:
        return next((layer.a.device for layer in self.factors.values()), torch.device("cpu"))

    def route(self, groups_R: Sequence[int], counts_R: Sequence[int]) -> TokenRoute:
        """The route of packed rows: row r brings `counts_R[r]` tokens of group `groups_R[r]`."""
        if not self.factors:
            return TokenRoute(self, (), torch.empty(0, dtype=torch.long))
        tokens: dict[int, list[int]] = {}
        first = 0
        for group, count in zip(groups_R, counts_R, strict=True):
            tokens.setdefault(group, []).extend(range(first, first + count))
            first += count
        device = self._device
        inverse_T = torch.empty(first, dtype=torch.long)
        buckets: list[GroupBucket] = []
        offset = 0
        for groups in _like_groups(
            {group: len(members) for group, members in tokens.items()}, self.groups
        ):
            longest = max(len(tokens.get(group, ())) for group in groups)
            index_G_M = torch.zeros(len(groups), longest, dtype=torch.long)
            for index, group in enumerate(groups):
                members = torch.tensor(tokens.get(group, []), dtype=torch.long)
                index_G_M[index, : len(members)] = members
                inverse_T[members] = torch.arange(len(members)) + offset + index * longest
            everything = groups == list(range(self.groups))
            buckets.append(
                GroupBucket(
                    None if everything else to_device(torch.tensor(groups), device),
                    to_device(index_G_M, device),
                )
            )
            offset += index_G_M.numel()
        return TokenRoute(self, tuple(buckets), to_device(inverse_T, device))


@dataclass(frozen=True)
class GroupBucket:
    """Groups with about as many tokens."""

    groups: torch.Tensor | None
    """(G,) numbers of the groups; None for all of them in order, whose factors are used without a
    copy."""
    tokens_G_M: torch.Tensor
    """Token at each place; padding points at token 0 and is not read back."""


@dataclass(frozen=True)
class TokenRoute:
    """What the linears of one forward pass add.

    It goes into `RouteHolder` in the place of a training's route.
    """

    adapters: AdapterGroups
    buckets: tuple[GroupBucket, ...]
    inverse_T: torch.Tensor
    """Place of each token in the concatenated buckets."""

    def add(self, layer: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add policy and adapters of a layer to its output, in place.

        x is (1, T, in), y is (1, T, out).
        """
        x2, y2 = x[0], y[0]
        policy, factors = self.adapters.policy.get(layer), self.adapters.factors.get(layer)
        if policy is not None:
            y2.addmm_(x2 @ policy[0].t(), policy[1].t())
        if factors is not None:
            updates = [self._update(factors, bucket, x2) for bucket in self.buckets]
            y2 += (updates[0] if len(updates) == 1 else torch.cat(updates))[self.inverse_T]
        return y

    def _update(self, factors: Factors, bucket: GroupBucket, x2: torch.Tensor) -> torch.Tensor:
        a, b = factors.a, factors.b
        if bucket.groups is not None:
            a, b = a[bucket.groups], b[bucket.groups]
        xa = torch.bmm(x2[bucket.tokens_G_M], a.transpose(1, 2))
        return torch.bmm(xa, b.transpose(1, 2)).view(-1, b.shape[1])


def _like_groups(counts: Mapping[int, int], groups: int) -> list[list[int]]:
    """Cut groups into lists of like numbers of tokens.

    Few tokens of most groups make one list of all `groups`, used or not.
    """
    if max(counts.values()) <= SMALL_GROUP and 2 * len(counts) > groups:
        return [list(range(groups))]
    order = sorted(counts, key=lambda group: (-counts[group], group))
    lists: list[list[int]] = []
    for group in order:
        largest = counts[lists[-1][0]] if lists else 0
        if lists and (largest <= SMALL_GROUP or counts[group] >= MAX_GROUP_PADDING * largest):
            lists[-1].append(group)
        else:
            lists.append([group])
    return [sorted(members) for members in lists]
