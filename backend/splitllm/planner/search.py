"""Label search over (stage, state): the best placement within several limits at once.

A label is a partial placement: (objective, reduced objective, one total per limited resource). The objective is one
integer made of a primary quantity, a secondary one that breaks its ties, and the placement itself as bits (a client
stage is 1, the first stage the highest), so that comparing two labels compares all three in that order, no two
labels are equal, and the placement is read off the winner. The reduced objective adds every resource at the price
that `bounds.ascend` found; with it one comparison per label applies the Lagrangian bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add, le
from typing import Final

from .bounds import Graph, ascend, least_rests
from .dominance import Label, undominated
from .exact import Axis
from .problem import Placement, Side

#: Labels per stage of the passes that come before the one with the caller's cap.
_NARROW: Final = (32, 400)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found. `placement` is None when nothing is feasible (proven when `complete`).

    `bound` is a proven lower bound of the primary quantity, in its units; `labels` counts the labels that were kept.
    """

    placement: Placement | None
    bound: int
    complete: bool
    labels: int


@dataclass(frozen=True, slots=True)
class Objective:
    """A primary quantity to minimise and a secondary one for its ties, as one integer per entry."""

    primary: Axis
    joint: Axis
    shift: int  # joint >> shift is the primary quantity
    stages: int

    @classmethod
    def of(cls, primary: Axis, secondary: Axis, tertiary: Axis | None = None) -> Objective:
        """Join the quantities; each gets as many bits as its largest possible total needs."""
        stages, last = len(primary.client), 0
        bits = [1 << (stages - 1 - stage) for stage in range(stages)]
        zeros = [0] * stages
        joint, shift = Axis(bits, zeros, zeros, [*zeros, 0]), stages
        for axis in (tertiary, secondary, primary):
            if axis is not None:
                last = shift
                joint = _plus(joint, 1 << last, axis)
                shift += _most(axis).bit_length()
        return cls(primary, joint, last, stages)

    def placement(self, joint: int) -> Placement:
        """Read the placement off a complete label's objective."""
        return tuple(
            Side.CLIENT if joint >> (self.stages - 1 - stage) & 1 else Side.SERVER for stage in range(self.stages)
        )


def minimise(
    graph: Graph, objective: Objective, resources: Sequence[Axis], *, label_cap: int, known: Iterable[Placement] = ()
) -> Found:
    """The placement of least objective within every resource's limit.

    `known` are placements that are feasible; they only speed the search up. At most `label_cap` labels are kept per
    stage; where more would be needed the most promising stay, and `bound` tells what the others could have reached.
    """
    joint = objective.joint
    resources = _that_can_bind(graph, resources)
    floors = [_least(graph, axis)[0] for axis in resources]
    if any(floor[0][0] > (axis.limit or 0) for floor, axis in zip(floors, resources, strict=True)):
        return Found(None, 0, True, 0)

    best = min((joint.total(placement) for placement in known), default=None)
    prices: list[int] = []
    if resources:
        ascent = ascend(graph, objective.primary, resources)
        totals = [joint.total(placement) for placement in ascent.feasible]
        best = min(totals if best is None else [*totals, best], default=None)
        prices = [_fixed(price, objective.shift) for price in ascent.prices]
    reduced = joint
    for price, axis in zip(prices, resources, strict=True):
        reduced = _plus(reduced, price, axis)
    rebate = sum(price * (axis.limit or 0) for price, axis in zip(prices, resources, strict=True))
    rests, never = _least(graph, reduced)
    if rests[0][0] >= never:
        return Found(None, 0, True, 0)
    # A label may still beat the best known placement while reduced + rest <= ceiling.
    ceiling = never - 1 if best is None else best + rebate - 1
    walk = _Walk(graph, [joint, reduced, *resources], rests, floors, [axis.limit or 0 for axis in resources])
    kept = 0
    for cap in (*(narrow for narrow in _NARROW if narrow < label_cap), label_cap):
        # Narrow passes are cheap and find good placements, whose cost then keeps the wide pass narrow.
        ceiling = never - 1 if best is None else best + rebate - 1
        total, dropped, count = walk.run(ceiling, cap)
        kept += count
        if total is not None:
            best = total if best is None else min(best, total)
        if dropped is None or (best is not None and dropped - rebate >= best):
            bound = 0 if best is None else best >> objective.shift
            return Found(None if best is None else objective.placement(best), bound, True, kept)
    bound = max(dropped - rebate, 0) >> objective.shift if dropped is not None else 0
    return Found(None if best is None else objective.placement(best), bound, False, kept)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One forward pass over the stages. `axes` are the label's entries, `rests` bounds on the reduced objective."""

    graph: Graph
    axes: Sequence[Axis]
    rests: Sequence[Sequence[int]]
    floors: Sequence[Sequence[Sequence[int]]]
    limits: Sequence[int]

    def run(self, ceiling: int, label_cap: int) -> tuple[int | None, int | None, int]:
        """Keep labels whose reduced objective and rest stay within `ceiling`.

        Returns the least objective of a complete label, the least bound of a label dropped for `label_cap` (None:
        none there was), and the number of labels kept.
        """
        layers: list[list[Label]] = [[] for _ in self.graph.flips]
        layers[0] = [(0,) * len(self.axes)]
        kept, dropped = 0, None
        for stage in range(len(self.graph.allowed)):
            after = self.rests[stage + 1]
            caps = [
                (
                    ceiling - after[state],
                    *(limit - floor[stage + 1][state] for limit, floor in zip(self.limits, self.floors, strict=True)),
                )
                for state in range(len(layers))
            ]
            layers = _step(self.graph, self.axes, layers, stage, caps)
            count = sum(map(len, layers))
            if count > label_cap:
                layers, lost = _most_promising(layers, after, label_cap)
                dropped = lost if dropped is None else min(dropped, lost)
                count = label_cap
            kept += count
        home = self.axes[0].down[-1]
        totals = (label[0] + home * (state & 1) for state, labels in enumerate(layers) for label in labels)
        return min(totals, default=None), dropped, kept


def _step(
    graph: Graph, axes: Sequence[Axis], layers: Sequence[list[Label]], stage: int, caps: Sequence[Label]
) -> list[list[Label]]:
    """All labels one stage further, without those over a cap and those another is at least as good as."""
    on_client, on_server = ([axis.client[stage] for axis in axes], [axis.server[stage] for axis in axes])
    going_up = [axis.up[stage] + axis.server[stage] for axis in axes]
    coming_down = [axis.down[stage] + axis.client[stage] for axis in axes]
    grown: list[list[Label]] = [[] for _ in layers]
    for state, labels in enumerate(layers):
        if not labels:
            continue
        other, at_server = graph.flips[state], state & 1
        if graph.allowed[stage][at_server]:
            grown[state] += _moved(labels, on_server if at_server else on_client, caps[state])
        if other >= 0 and graph.allowed[stage][1 - at_server]:
            grown[other] += _moved(labels, coming_down if at_server else going_up, caps[other])
    result: list[list[Label]] = [[] for _ in layers]
    for side in (0, 1):
        entries = sorted((label, state) for state in range(side, len(layers), 2) for label in grown[state])
        for label, state in undominated(entries):
            result[state].append(label)
    return result


def _moved(labels: Sequence[Label], delta: Sequence[int], caps: Label) -> list[Label]:
    if len(delta) == 4:  # two resources, such as prefill and decode: worth its own loop
        d0, d1, d2, d3 = delta
        c1, c2, c3 = caps[0] - d1, caps[1] - d2, caps[2] - d3
        return [
            (label[0] + d0, label[1] + d1, label[2] + d2, label[3] + d3)
            for label in labels
            if label[1] <= c1 and label[2] <= c2 and label[3] <= c3
        ]
    if len(delta) == 5:  # the same with the client's memory
        d0, d1, d2, d3, d4 = delta
        c1, c2, c3, c4 = caps[0] - d1, caps[1] - d2, caps[2] - d3, caps[3] - d4
        return [
            (label[0] + d0, label[1] + d1, label[2] + d2, label[3] + d3, label[4] + d4)
            for label in labels
            if label[1] <= c1 and label[2] <= c2 and label[3] <= c3 and label[4] <= c4
        ]
    moved = (tuple(map(add, label, delta)) for label in labels)
    return [label for label in moved if all(map(le, label[1:], caps))]


def _most_promising(layers: Sequence[list[Label]], after: Sequence[int], cap: int) -> tuple[list[list[Label]], int]:
    """The `cap` labels of least bound, and the least bound among the others."""
    ranked = sorted(
        (label[1] + after[state], state, number)
        for state, labels in enumerate(layers)
        for number, label in enumerate(labels)
    )
    kept: list[list[Label]] = [[] for _ in layers]
    for _, state, number in ranked[:cap]:
        kept[state].append(layers[state][number])
    return kept, ranked[cap][0]


def _that_can_bind(graph: Graph, resources: Iterable[Axis]) -> list[Axis]:
    """The resources that some placement exceeds; the others need no place in a label."""
    binding = []
    for axis in resources:
        if axis.limit is None:
            continue
        negative = Axis.of([-value for value in column] for column in axis.columns)
        if -least_rests(graph, *negative.columns, _most(axis) + 1)[0][0] > axis.limit:
            binding.append(axis)
    return binding


def _least(graph: Graph, axis: Axis) -> tuple[list[list[int]], int]:
    """`least_rests` of an axis, and the figure that marks a dead end there."""
    never = 1 << (_most(axis).bit_length() + 8)
    return least_rests(graph, *axis.columns, never), never


def _most(axis: Axis) -> int:
    """No placement's total is larger."""
    return sum(map(max, axis.client, axis.server)) + sum(axis.up) + sum(axis.down)


def _plus(base: Axis, factor: int, axis: Axis) -> Axis:
    """`base` + `factor` · `axis`, entry by entry."""
    if factor == 0:
        return base
    return Axis.of(
        [value + factor * more for value, more in zip(column, extra, strict=True)]
        for column, extra in zip(base.columns, axis.columns, strict=True)
    )


def _fixed(price: float, shift: int) -> int:
    """`price` · 2^shift as an integer, whatever the size of `shift`."""
    mantissa, exponent = math.frexp(price)
    digits = int(mantissa * (1 << 53))
    exponent += shift - 53
    return digits << exponent if exponent >= 0 else digits >> -exponent
