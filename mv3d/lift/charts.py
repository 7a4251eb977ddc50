"""Charts of a surface's texture: which triangles lie together on the plane, and how; and fewer of them out of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mv3d.lift.flattening import Array, Index, Plane, Sheets, SurfaceTriangles, next_corner

_MOST_ROUNDS = 12
_STRETCH = (0.5, 2.0)  # how many times longer the plane may make what is short
_STRETCHED = 0.2  # of the area of the charts that join a larger one: as much may be stretched more than that
_SHARPEST = 0.05  # what a seam along a sharp edge counts beside one on a plane
_MOST_BORDER = 8000  # edges, all pairs of which are compared


@dataclass(frozen=True, eq=False)
class Charts:
    """Where the triangles of a surface lie on the plane; every chart by itself, and anywhere."""

    chart: Index
    """(F,), which chart each triangle is in."""
    plane: Plane
    """(F, 3), its corners, counter-clockwise, lengths about the surface's."""

    @classmethod
    def of_layout(cls, surface: SurfaceTriangles, vertex: Index, place: Array) -> Charts:
        """Those of a layout: the vertices (F, 3) of its triangles, which charts do not share, and their places (V, 2).

        What lies there mirrored is turned over.
        """
        links = sparse.coo_matrix(
            (np.ones(2 * len(vertex)), (vertex[:, [0, 1]].ravel(), vertex[:, [1, 2]].ravel())), shape=(len(place),) * 2
        )
        chart = np.unique(connected_components(links, directed=False)[1][vertex[:, 0]], return_inverse=True)[1]
        chart = chart.astype(np.int64)
        plane = (place[:, 0] + 1j * place[:, 1])[vertex]
        area = _signed_area(plane)
        mirrored = (np.bincount(chart, area) < 0)[chart]
        scale = np.sqrt(surface.area.sum() / max(np.abs(area).sum(), 1e-300))
        return cls(chart, np.where(mirrored[:, None], np.conj(plane), plane) * scale)

    def apart(self) -> Array:
        """The corners on a plane, (F, 3, 2), on which no chart touches another and all together have an area of 1."""
        plane = self.plane / np.sqrt(max(_signed_area(self.plane).sum(), 1e-300))
        count = int(self.chart.max()) + 1
        chart, places = np.repeat(self.chart, 3), np.stack([plane.real, plane.imag], axis=-1).reshape(-1, 2)
        low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(low, chart, places)
        np.maximum.at(high, chart, places)
        across = int(np.ceil(count**0.5))
        cell = np.stack([np.arange(count) % across, np.arange(count) // across], axis=1)
        return (places - low[chart] + 1.1 * (high - low).max() * cell[chart]).reshape(-1, 3, 2)

    def joined(self, surface: SurfaceTriangles, least_shared: Sequence[float]) -> list[Charts]:
        """Join charts, from the smallest on, to a neighbour with which they share much of their border.

        Those are left that would be stretched or lie on themselves.

        Args:
            surface: of the charts.
            least_shared: how much of their border, in [0, 1]; and then, how much those share that are joined further.

        Returns:
            The charts that there are then, each time.
        """
        joining, out, found = _Joining(surface), self, []
        for share in least_shared:
            for _ in range(_MOST_ROUNDS):
                groups = joining.choose(out, share)
                if not groups:
                    break
                out = joining.attempt(out, groups)
            found.append(replace(out, chart=np.unique(out.chart, return_inverse=True)[1].astype(np.int64)))
        return found


@dataclass(frozen=True, eq=False)
class _Joining:
    """What has been found out about which charts may join which."""

    surface: SurfaceTriangles
    refused: set[tuple[int, int]] = field(default_factory=set)
    """Charts that do not fit on to another."""
    one_by_one: set[int] = field(default_factory=set)
    """Charts that several together did not fit on to."""

    def choose(self, charts: Charts, least_shared: float) -> dict[int, list[int]]:
        """Of charts that others are to join, these."""
        surface, count = self.surface, int(charts.chart.max()) + 1
        area = np.bincount(charts.chart, surface.area, count)
        sides = charts.chart[surface.edges // 3]
        is_seam = sides[:, 0] != sides[:, 1]
        sides, (one, other) = sides[is_seam], surface.edges[is_seam].T
        length = np.abs(surface.corners.ravel()[next_corner(one)] - surface.corners.ravel()[one])
        straight = (surface.normals[one // 3] * surface.normals[other // 3]).sum(axis=1).clip(_SHARPEST, 1)
        border = np.bincount(sides.ravel(), np.repeat(length, 2), count)
        pairs = np.concatenate([sides, sides[:, ::-1]]) @ [count, 1]
        pair, which = np.unique(pairs, return_inverse=True)
        shared = np.bincount(which, np.tile(length, 2))
        worth = np.bincount(which, np.tile(length * straight, 2))
        kept = shared >= least_shared * border[pair // count]
        neighbours: dict[int, list[int]] = {}
        for at in np.flatnonzero(kept)[np.argsort(-worth[kept], kind="stable")]:
            neighbours.setdefault(int(pair[at] // count), []).append(int(pair[at] % count))
        groups: dict[int, list[int]] = {}
        joining: set[int] = set()
        for small in np.argsort(area, kind="stable").tolist():
            if small in groups or not area[small]:
                continue
            for large in neighbours.get(small, []):
                is_full = large in self.one_by_one and large in groups
                if large not in joining and not is_full and (small, large) not in self.refused:
                    groups.setdefault(large, []).append(small)
                    joining.add(small)
                    break
        return groups

    def attempt(self, charts: Charts, groups: dict[int, list[int]]) -> Charts:
        """Lay each group on the plane as one chart; those that do not lie well stay as they were."""
        surface, count = self.surface, int(charts.chart.max()) + 1
        into = np.arange(count)
        for large, smalls in groups.items():
            into[smalls] = large
        is_in_group = np.isin(into, list(groups))
        faces = np.flatnonzero(is_in_group[charts.chart])
        sheets = Sheets.of(surface, faces, into[charts.chart[faces]])
        start = charts.plane[faces] * _turns(charts, surface, into)[charts.chart[faces], None]
        plane = sheets.flatten(start)
        unfit = self._unfit(charts, groups, sheets, plane)
        for large in unfit:
            if len(groups[large]) == 1:
                self.refused.add((groups[large][0], large))
            else:
                self.one_by_one.add(large)
        fits = ~np.isin(sheets.sheet, list(unfit))
        chart, whole = charts.chart.copy(), charts.plane.copy()
        chart[faces[fits]], whole[faces[fits]] = sheets.sheet[fits], plane[fits]
        return Charts(chart, whole)

    def _unfit(self, charts: Charts, groups: dict[int, list[int]], sheets: Sheets, plane: Plane) -> set[int]:
        count = int(charts.chart.max()) + 1
        area = np.bincount(charts.chart, self.surface.area, count)
        largest, least = sheets.stretches(plane)
        is_stretched = (least < _STRETCH[0]) | (largest > _STRETCH[1])
        stretched = np.bincount(sheets.sheet, self.surface.area[sheets.faces] * is_stretched, count)
        edges = np.bincount(sheets.sheet, sheets.border.sum(axis=1), count)
        unfit = set(sheets.sheet[least <= 0].tolist())
        unfit |= {large for large, smalls in groups.items() if stretched[large] > _STRETCHED * area[smalls].sum()}
        unfit |= set(np.flatnonzero(edges > _MOST_BORDER).tolist())
        fits = ~np.isin(sheets.sheet, list(unfit))
        return unfit | sheets.only(fits).overlapping(plane[fits])


def _turns(charts: Charts, surface: SurfaceTriangles, into: Index) -> Plane:
    """How each of C charts (C,) is turned so that its border lies as that of the chart that it joins, ``into`` (C,)."""
    both = np.concatenate([surface.edges, surface.edges[:, ::-1]])
    mine, theirs = charts.chart[both // 3].T
    both = both[(mine != theirs) & (into[mine] == theirs)]
    flat = charts.plane.ravel()
    (own, other), (own_end, other_end) = (flat[both].T, flat[next_corner(both)].T)
    turn = (other - other_end) * np.conj(own_end - own)
    chart = charts.chart[both[:, 0] // 3]
    total = np.bincount(chart, turn.real, len(into)) + 1j * np.bincount(chart, turn.imag, len(into))
    size = np.abs(total)
    return np.where(size > 0, total / np.maximum(size, 1e-300), 1)


def _signed_area(plane: Plane) -> Array:
    one, other = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
    return (one.real * other.imag - one.imag * other.real) / 2
