"""Fewer triangles for a mesh with many poses: half-edge collapse by quadric error (Garland and Heckbert 1997).

A collapse removes a vertex onto a neighbour and moves nothing, so that every shape of a morphable head stays valid
after picking the kept rows. Errors are summed over several poses: what is flat at rest may bend when the jaw opens.
"""

from __future__ import annotations

import heapq

import numpy as np


def decimate(
    poses: np.ndarray, faces: np.ndarray, face_uv: np.ndarray, weight: np.ndarray, locked: np.ndarray, target: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Collapse edges until `target` vertices are left, or none can go.

    Args:
        poses: the same vertices in P poses, [P, V, 3].
        faces: [F, 3].
        face_uv: texture coordinate index of every corner, [F, 3].
        weight: importance of every face, [F].
        locked: vertices that must stay (borders, texture seams, landmarks), [V] bool.
        target: number of vertices to keep.

    Returns:
        kept vertices [K] in ascending order; faces [G, 3] as indices into them; face_uv [G, 3]; the original face each
        came from, [G].
    """
    return _Collapse(poses, faces, face_uv, weight, locked).run(target)


def seam_vertices(faces: np.ndarray, face_uv: np.ndarray, vertices: int) -> np.ndarray:
    """Vertices at open edges or with more than one texture coordinate, [V] bool."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, uses = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    seam = np.zeros(vertices, dtype=bool)
    seam[edges[uses != 2]] = True
    corners = np.unique(np.stack([faces.ravel(), face_uv.ravel()], axis=1), axis=0)
    owners, count = np.unique(corners[:, 0], return_counts=True)
    seam[owners[count > 1]] = True
    return seam


class _Collapse:
    def __init__(self, poses, faces, face_uv, weight, locked):
        self.points = np.ascontiguousarray(poses.transpose(1, 0, 2))
        self.faces, self.face_uv = faces.copy(), face_uv.copy()
        self.alive = np.ones(len(faces), dtype=bool)
        self.locked = locked
        self.around = [set() for _ in range(poses.shape[1])]
        for number, face in enumerate(faces.tolist()):
            for vertex in face:
                self.around[vertex].add(number)
        self.quadric = self._quadrics(weight)
        self.version = np.zeros(poses.shape[1], dtype=np.int64)
        self.refused = [set() for _ in self.around]
        self.heap = []

    def _quadrics(self, weight):
        corner = self.points[self.faces]
        a, b, c = corner[:, 0], corner[:, 1], corner[:, 2]
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal, axis=-1, keepdims=True)
        normal = normal / np.maximum(area, 1e-12)
        plane = np.concatenate([normal, -(normal * a).sum(-1, keepdims=True)], axis=-1)
        each = plane[..., :, None] * plane[..., None, :] * (weight[:, None, None, None] * area[..., None])
        total = np.zeros((len(self.points), self.points.shape[1], 4, 4))
        for corner_number in range(3):
            np.add.at(total, self.faces[:, corner_number], each)
        return total

    def run(self, target):
        left = int(sum(1 for faces in self.around if faces))
        for vertex in range(len(self.points)):
            self._propose(vertex)
        while left > target and self.heap:
            _, vertex, onto, version = heapq.heappop(self.heap)
            if version != self.version[vertex] or not self.around[onto]:
                continue
            if self._allowed(vertex, onto):
                self._remove(vertex, onto)
                left -= 1
            else:
                self.refused[vertex].add(onto)
                self._propose(vertex)
        faces = self.faces[self.alive]
        kept = np.unique(faces)
        return kept, np.searchsorted(kept, faces), self.face_uv[self.alive], np.flatnonzero(self.alive)

    def _neighbours(self, vertex):
        return set(self.faces[list(self.around[vertex])].ravel().tolist()) - {vertex}

    def _propose(self, vertex):
        """Queue the cheapest collapse of a vertex; its older proposals become void."""
        self.version[vertex] += 1
        if self.locked[vertex] or not self.around[vertex]:
            return
        options = list(self._neighbours(vertex) - self.refused[vertex])
        if not options:
            return
        place = np.concatenate([self.points[options], np.ones((len(options), self.points.shape[1], 1))], axis=2)
        total = self.quadric[vertex] + self.quadric[options]
        cost = np.einsum("npi,npij,npj->n", place, total, place)
        best = int(cost.argmin())
        heapq.heappush(self.heap, (float(cost[best]), vertex, options[best], int(self.version[vertex])))

    def _allowed(self, vertex, onto):
        """The surface stays a surface, and no triangle turns over or collapses to a line at rest."""
        if len(self._neighbours(vertex) & self._neighbours(onto)) != 2:
            return False
        staying = list(self.around[vertex] - self.around[onto])
        old = self.points[self.faces[staying], 0]
        new = np.where((self.faces[staying] == vertex)[..., None], self.points[onto, 0], old)
        before = np.cross(old[:, 1] - old[:, 0], old[:, 2] - old[:, 0])
        after = np.cross(new[:, 1] - new[:, 0], new[:, 2] - new[:, 0])
        sizes = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        return bool(((before * after).sum(1) > 0.3 * sizes).all())

    def _remove(self, vertex, onto):
        gone = self.around[vertex] & self.around[onto]
        shared = next(iter(gone))
        uv = self.face_uv[shared][self.faces[shared] == onto][0]
        changed = self._neighbours(vertex)
        for number in gone:
            self.alive[number] = False
            for corner in self.faces[number].tolist():
                self.around[corner].discard(number)
        for number in self.around[vertex]:
            corner = self.faces[number] == vertex
            self.faces[number][corner] = onto
            self.face_uv[number][corner] = uv
            self.around[onto].add(number)
        self.around[vertex] = set()
        self.quadric[onto] += self.quadric[vertex]
        for other in changed:
            self.refused[other].clear()
            self._propose(other)
