"""Pictures of people with exact labels: render, and where every point of one frame lies in another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import CANONICAL_CM, identity_grid
from .head import PersonMesh, Posed, build_mesh, eye_rotation, pose_mesh, shrink_textures
from .person import FrameLabels, HeadPack, Person, Rendered, Studio
from .scene import Scene
from .shade import PictureTable

# A point counts as seen when it lies at most this far (cm) behind what the other picture shows.
_HIDDEN_CM = 0.4
# Pixels drawn at once: on a CPU the working set of a few frames, on a GPU about 10 GB.
_PIXELS_PER_PASS_CPU, _PIXELS_PER_PASS_GPU = 1.2e6, 4.0e7


def render(
    pack: HeadPack, person: Person, studio: Studio, labels: FrameLabels, size: int, samples: float = 1
) -> Rendered:
    """Render T frames of one person on the device of `labels.head_pose`.

    Args:
        pack: the head the person is made from; pack, person and studio live on the CPU.
        person: who is rendered.
        studio: light, camera and background.
        labels: T frames; they are the exact labels of the result.
        size: width and height of the pictures S in pixels.
        samples: pixels are drawn at `samples` times the size and averaged: 1, 1.5 or 2.

    Returns:
        Pictures and labels at size S.
    """
    return render_many(pack, [person], [studio], [labels], size, samples)[0]


def render_many(
    pack: HeadPack,
    people: list[Person],
    studios: list[Studio],
    labels_list: list[FrameLabels],
    size: int,
    samples: float = 1,
) -> list[Rendered]:
    """Render several people in one batch; arguments as for `render`, one result per person.

    Long clips are drawn in several passes, so that memory does not grow with their length.
    """
    device = labels_list[0].head_pose.device
    meshes = [
        shrink_textures(build_mesh(pack, person, device), _pixels_per_cm(labels, round(size * samples)))
        for person, labels in zip(people, labels_list, strict=True)
    ]
    budget = _PIXELS_PER_PASS_CPU if device.type == "cpu" else _PIXELS_PER_PASS_GPU
    step = max(1, int(budget / (len(people) * (size * samples) ** 2)))
    longest = max(len(labels.head_pose) for labels in labels_list)
    passes: list[list[Rendered]] = [[] for _ in people]
    for first in range(0, longest, step):
        present = [k for k, labels in enumerate(labels_list) if len(labels.head_pose) > first]
        chunk = slice(first, first + step)
        results = _render_pass(
            [meshes[k] for k in present],
            [people[k] for k in present],
            [studios[k] for k in present],
            [_frames(labels_list[k], chunk) for k in present],
            size,
            samples,
        )
        for k, result in zip(present, results, strict=True):
            passes[k].append(result)
    return [_joined(results) for results in passes]


def _pixels_per_cm(labels: FrameLabels, pixels: int) -> float:
    """At the head's centre, in the frame where it is largest."""
    return float(labels.head_pose[:, 5].max().exp()) * pixels / (2 * CANONICAL_CM)


def _frames(labels: FrameLabels, chunk: slice) -> FrameLabels:
    return FrameLabels(labels.head_pose[chunk], labels.dynamics[chunk], labels.body_shift[chunk])


def _joined(results: list[Rendered]) -> Rendered:
    """Passes of one person one after the other."""
    if len(results) == 1:
        return results[0]
    values = {
        name: torch.cat([getattr(result, name) for result in results])
        for name in Rendered.__dataclass_fields__
        if name != "faces"
    }
    return Rendered(faces=results[0].faces, **values)


def _render_pass(
    meshes: list[PersonMesh],
    people: list[Person],
    studios: list[Studio],
    labels_list: list[FrameLabels],
    size: int,
    samples: float,
) -> list[Rendered]:
    device = meshes[0].base.device
    posed = [
        pose_mesh(mesh, labels, studio.focal) for mesh, labels, studio in zip(meshes, labels_list, studios, strict=True)
    ]
    fine = round(size * samples)
    scene = Scene.of(meshes, posed, studios, labels_list, size, fine)
    fragments = scene.draw()
    colour = scene.shade(fragments, _picture_table(meshes, people, studios, labels_list, scene, posed))
    background = torch.cat(
        [
            _resized(studio.background.to(device), fine).expand(len(labels.head_pose), -1, -1, -1)
            for studio, labels in zip(studios, labels_list, strict=True)
        ]
    )
    canvas = background.permute(0, 2, 3, 1).reshape(-1, 3).contiguous()
    canvas.index_copy_(0, fragments.pixel, colour)
    image = canvas.view(-1, fine, fine, 3).permute(0, 3, 1, 2)
    if fine != size:
        image = F.interpolate(image, size=(size, size), mode="area")
    part, triangle, weights = scene.labels(fragments)
    results, first = [], 0
    for mesh, pose, labels in zip(meshes, posed, labels_list, strict=True):
        frames = slice(first, first + len(labels.head_pose))
        first = frames.stop
        results.append(
            Rendered(
                image=image[frames].clamp(0, 1).contiguous(),
                part=part[frames],
                triangle=triangle[frames],
                weights=weights[frames],
                vertices=torch.cat([pose.picture, pose.camera[..., 2:]], dim=-1),
                faces=mesh.faces,
                landmarks=pose.picture[:, mesh.landmarks],
            )
        )
    return results


def _picture_table(
    meshes: list[PersonMesh],
    people: list[Person],
    studios: list[Studio],
    labels_list: list[FrameLabels],
    scene: Scene,
    posed: list[Posed],
) -> PictureTable:
    """One row per picture of what the shader needs; people with fewer lights get black ones."""
    device = scene.camera.device
    lights = max(len(studio.light_directions) for studio in studios)
    rows: dict[str, list[Tensor]] = {name: [] for name in PictureTable.__dataclass_fields__}
    first = 0
    for mesh, person, studio, labels, pose in zip(meshes, people, studios, labels_list, posed, strict=True):
        frames = len(labels.head_pose)
        missing = lights - len(studio.light_directions)
        dilation = 1 + 0.6 * labels.dynamics[:, :2].to(device).float().mean(1)
        angles = torch.stack([torch.full_like(dilation, person.iris_radius), person.pupil_radius * dilation], dim=1)
        constant = {
            "light_direction": F.pad(studio.light_directions, (0, 0, 0, missing)),
            "light_colour": F.pad(studio.light_colours, (0, 0, 0, missing)),
            "ambient": studio.ambient, "sky": studio.sky,
            "iris": person.iris, "sclera": person.sclera, "teeth": person.teeth,
            "gloss": torch.tensor(person.gloss),
        }  # fmt: skip
        for name, value in constant.items():
            rows[name].append(value.to(device).float().expand(frames, *value.shape))
        rows["eye_angles"].append(angles)
        frame = slice(first, first + frames)
        first += frames
        marks = pose.camera[:, mesh.landmarks]
        offset = marks[:, [62, 66, 48, 54]] - scene.head_centre[frame, None]
        offset = torch.cat([offset[..., :2], -offset[..., 2:]], dim=-1) @ scene.rotation[frame]
        middle = offset[:, :2].mean(1)
        rows["lips"].append(torch.cat([middle[:, :2], offset[:, 2:, 2].mean(1, keepdim=True)], dim=1))
        rows["opening"].append((offset[:, 0] - offset[:, 1]).norm(dim=1))
        rows["rotation"].append(scene.rotation[frame])
        ahead = eye_rotation(labels.dynamics.to(device))[:, :, 2:]
        rows["gaze"].append((scene.rotation[frame] @ ahead)[..., 0])
    return PictureTable(**{name: torch.cat(values) for name, values in rows.items()})


def _resized(picture: Tensor, size: int) -> Tensor:
    if picture.shape[-1] == size:
        return picture[None]
    return F.interpolate(picture[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def flow_between(rendered: Rendered, target: int | slice, source: int | slice) -> tuple[Tensor, Tensor]:
    """Where every pixel of target frames lies in source frames.

    Args:
        rendered: frames of one person.
        target, source: frame numbers or slices; one of them may name a single frame for all of the other's.

    Returns:
        Positions in the source [n, S, S, 2] in [-1, 1] (background pixels map to themselves), and visible
        [n, S, S] bool: inside the source picture and not hidden there by something nearer.
    """
    targets = _frame_numbers(target, rendered)
    sources = _frame_numbers(source, rendered)
    count = max(len(targets), len(sources))
    targets, sources = targets.expand(count), sources.expand(count)
    size = rendered.triangle.shape[-1]
    grid = identity_grid((size, size), rendered.image.device)
    triangle = rendered.triangle[targets]
    weights = rendered.weights[targets]
    flow = grid.expand(count, size, size, 2).clone()
    frame, row, column = (triangle >= 0).nonzero().unbind(1)
    corner = rendered.faces.index_select(0, triangle[frame, row, column].long())
    index = corner + (sources[frame] * rendered.vertices.shape[1])[:, None]
    vertex = rendered.vertices.flatten(0, 1).index_select(0, index.flatten()).view(-1, 3, 3)
    # The weights are those of the surface: positions in space, not in the picture, are what they blend.
    share = weights[frame, row, column] * vertex[..., 2]
    depth = share.sum(1)
    place = (share[..., None] * vertex[..., :2]).sum(1) / depth[:, None]
    flow[frame, row, column] = place

    surface = _depth_map(rendered)
    visible = rendered.triangle[sources] < 0
    column_at = ((place[:, 0] + 1) * ((size - 1) / 2)).round().long()
    row_at = ((place[:, 1] + 1) * ((size - 1) / 2)).round().long()
    within = (column_at >= 0) & (column_at < size) & (row_at >= 0) & (row_at < size)
    seen = surface[sources[frame], row_at.clamp(0, size - 1), column_at.clamp(0, size - 1)]
    visible[frame, row, column] = within & (depth < seen + _HIDDEN_CM) & torch.isfinite(seen)
    return flow, visible


def _frame_numbers(frames: int | slice, rendered: Rendered) -> Tensor:
    numbers = torch.arange(len(rendered.image), device=rendered.image.device)
    return numbers[frames].reshape(-1)


def _depth_map(rendered: Rendered) -> Tensor:
    """Distance from the camera, [T, S, S] cm; infinite where nothing is."""
    depth = torch.full(rendered.triangle.shape, torch.inf, device=rendered.image.device)
    frame, row, column = (rendered.triangle >= 0).nonzero().unbind(1)
    corner = rendered.faces.index_select(0, rendered.triangle[frame, row, column].long())
    index = corner + (frame * rendered.vertices.shape[1])[:, None]
    vertex = rendered.vertices[..., 2].flatten().index_select(0, index.flatten()).view(-1, 3)
    depth[frame, row, column] = (vertex * rendered.weights[frame, row, column]).sum(1)
    return depth
