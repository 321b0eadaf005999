"""The asset pack builder's parts, on small made-up meshes."""

import numpy as np
import pytest

from vasa.errors import InputError
from vasa.synthetic.decimate import decimate, seam_vertices
from vasa.synthetic.pack import build_pack
from vasa.synthetic.transfer import Warp, find, is_picture, read_hair
from vasa.synthetic.wavefront import Mesh, read_mesh, read_vertices

SQUARES = """\
# two squares
v 0 0 0
v 1 0 0
v 2 0 0
v 0 1 0
v 1 1 0
v 2 1 0
vt 0 0
vt 0.5 0
vt 1 0
vt 0 1
vt 0.5 1
vt 1 1
usemtl left
f 1/1 2/2 5/5 4/4
usemtl right
f 2/2/1 3/3/1 6/6/1 5/5/1
"""


def sheet(count: int, height) -> tuple[np.ndarray, np.ndarray]:
    """A square grid of count x count vertices over [0, 1], and its triangles."""
    axis = np.linspace(0, 1, count)
    x, y = np.meshgrid(axis, axis)
    points = np.stack([x.ravel(), y.ravel(), height(x, y).ravel()], axis=1)
    index = np.arange(count * count).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return points, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def test_wavefront_polygons_become_triangles_with_parts(tmp_path):
    path = tmp_path / "squares.obj"
    path.write_text(SQUARES)
    mesh = read_mesh(path)
    assert read_vertices(path).shape == (6, 3) and mesh.uv.shape == (6, 2)
    assert mesh.faces.tolist() == [[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]]
    assert mesh.part.tolist() == ["left", "left", "right", "right"]
    assert np.array_equal(mesh.uv[mesh.face_uv], mesh.vertices[mesh.faces][..., :2] / [2, 1])


def test_wavefront_without_texture_coordinates_is_refused(tmp_path):
    path = tmp_path / "bare.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match="texture coordinates"):
        read_mesh(path)


def test_a_flat_sheet_loses_its_inside_and_keeps_its_border_and_area():
    points, faces = sheet(9, lambda x, y: 0 * x)
    locked = seam_vertices(faces, faces, len(points))
    assert locked.sum() == 32
    kept, fewer, uv, origin = decimate(points[None], faces, faces, np.ones(len(faces)), locked, 40)
    assert len(kept) == 40 and set(np.flatnonzero(locked)) <= set(kept)
    assert np.array_equal(uv, kept[fewer]) and origin.max() < len(faces)
    a, b, c = (points[kept][fewer[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    assert np.isclose(normal[:, 2].sum() / 2, 1.0) and (normal[:, 2] > 0).all()


def test_what_bends_in_another_pose_is_kept():
    flat, faces = sheet(17, lambda x, y: 0 * x)
    bent, _ = sheet(17, lambda x, y: np.where(x > 0.5, 3 * (x - 0.5) ** 2, 0))
    locked = seam_vertices(faces, faces, len(flat))
    kept, _, _, _ = decimate(np.stack([flat, bent]), faces, faces, np.ones(len(faces)), locked, 120)
    inside = kept[~locked[kept]]
    assert (flat[inside, 0] > 0.5).sum() > 4 * (flat[inside, 0] < 0.5).sum()


def test_a_texture_seam_is_locked():
    _, faces = sheet(5, lambda x, y: 0 * x)
    uv = faces.copy()
    uv[(faces % 5).min(1) >= 2] += 100
    seam = seam_vertices(faces, uv, 25)
    assert seam[12] and not seam[11]


def test_hair_is_bound_to_the_head(tmp_path):
    (tmp_path / "wig.obj").write_text(SQUARES)
    (tmp_path / "wig.mhmat").write_text("name wig\ndiffuseTexture wig.png\n")
    bound = ["0 1 2 0.5 0.25 0.25 0 0 0.5", *["1"] * 4, "3"]
    head = "obj_file wig.obj\nmaterial wig.mhmat\nz_scale 0 3 1.0\nverts 0\nweights_file none\n"
    (tmp_path / "wig.mhclo").write_text(head + "\n".join(bound))
    mean = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 2], [1, 1, 1]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 4]])
    part = np.array(["body"] * 4)
    warp = Warp(Mesh(mean, faces, np.zeros((1, 2)), np.zeros((4, 3), int), part), mean, 2 * mean + 1, np.arange(5))
    mesh, texture = read_hair(tmp_path / "wig.mhclo", warp)
    assert texture == tmp_path / "wig.png" and len(mesh.vertices) == 6
    expected = 2 * np.array([[1, 1, 1], [4, 0, 0], [4, 0, 0], [4, 0, 0], [4, 0, 0], [0, 0, 2]]) + 1
    assert np.allclose(mesh.vertices, expected, atol=1e-6)


def test_pointers_to_large_files_are_no_pictures(tmp_path):
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert not is_picture(tmp_path / "pointer.png") and is_picture(tmp_path / "picture.png")
    assert not is_picture(tmp_path / "absent.png")


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"generic_neutral_mesh\.obj"):
        build_pack(tmp_path, tmp_path, tmp_path / "pack")
    with pytest.raises(InputError, match=r"base\.obj"):
        find(tmp_path, "base.obj")
