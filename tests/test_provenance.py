"""The mark cannot be seen and is found; what a file says about itself is read back; nothing is claimed of others."""

import functools
import json

import pytest
import torch
import torch.nn.functional as F

from vasa import cli, provenance, signature
from vasa.errors import InputError
from vasa.io.face import Crop
from vasa.io.image import load_image
from vasa.io.paste import PasteBack
from vasa.io.video import VideoWriter, read_video
from vasa.provenance import KEY, find_mark, mark, marked, verify

SIZE = 256


@functools.cache
def moving(count: int = 6) -> torch.Tensor:
    """A portrait that turns and sways a little, [n, 3, 256, 256]."""
    picture = load_image("examples/portrait.png").pixels
    picture = F.interpolate(picture[None], size=(SIZE, SIZE), mode="bilinear", antialias=True)
    frames = []
    for i in range(count):
        angle, shift = torch.tensor(0.01 * i), 0.004 * i
        turn = torch.tensor([[angle.cos(), -angle.sin(), shift], [angle.sin(), angle.cos(), 0.0]])
        grid = F.affine_grid(turn[None], picture.shape, align_corners=False)
        frames.append(F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)[0])
    return torch.stack(frames).clamp(0, 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same clip marked and unmarked, as our own writer encodes them."""
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in (("marked", mark(moving())), ("plain", moving())):
        manifest = {"generator": "vasa 0.1.0", "model": "vasa-mini"} if name == "marked" else {}
        with VideoWriter(folder / f"{name}.mp4", SIZE, 25, None, manifest) as writer:
            writer.write(frames)
    return folder


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def test_the_mark_cannot_be_seen():
    assert psnr(mark(moving()), moving()) >= 42
    assert (mark(moving()) - moving()).abs().max() < 10 / 255


def test_it_is_found_after_our_own_encoding_even_in_one_frame(clips):
    frames = list(read_video(clips / "marked.mp4").frames)
    for count in (1, len(frames)):
        found = find_mark(iter(frames[:count]))
        assert found.found and found.scale == 1 and found.shift == (0, 0) and found.frames == count
        assert found.score > 2 * provenance.ALIGNED_SCORE


def test_it_is_not_found_where_it_is_not(clips):
    plain = list(read_video(clips / "plain.mp4").frames)
    assert not find_mark(iter(plain)).found
    tile = sum(provenance.folded(provenance.residual(provenance.luma(frame[None]))[0, 0]) for frame in plain)
    others = [provenance.scores(tile, key) for key in range(8)]
    assert max(float(one[0, 0]) for one in others) < provenance.ALIGNED_SCORE
    assert max(float(one.max()) for one in others) < provenance.MOVED_SCORE


def test_another_key_does_not_find_it(clips):
    assert not find_mark(read_video(clips / "marked.mp4").frames, key=KEY + 1).found


def test_it_is_found_in_a_cut_out_part_and_at_another_size():
    frames = mark(moving(1))
    cut = find_mark(iter(frames[:, :, 20:220, 30:230]))
    assert cut.found and cut.shift == (provenance.TILE - 30, provenance.TILE - 20)
    large = F.interpolate(frames, scale_factor=1.5, mode="bilinear", antialias=True)
    seen = find_mark(iter(large))
    assert seen.found and seen.scale == 1.5


def test_alpha_and_untouched_pixels_stay_as_they_are():
    rgba = torch.rand(1, 4, 32, 32)
    assert torch.equal(mark(rgba)[:, 3], rgba[:, 3])
    original = torch.rand(3, 96, 128)
    crop = Crop(original[:, 20:84, 30:94], 30, 20, 64)
    paste = PasteBack(original, crop, lock=False)
    left, top, width, height = paste.rectangle
    patch = original[None, :, top : top + height, left : left + width].clone()
    patch[:, :, 20:40, 20:40] = 0.5
    result = marked(patch, paste)
    changed = (result != patch).any(1)[0]
    assert changed[20:40, 20:40].float().mean() > 0.9
    changed[20:40, 20:40] = False
    assert not changed.any()


def test_patches_carry_the_pattern_of_the_whole_picture():
    whole = moving(1)
    patch = mark(whole[:, :, 64:, 32:], origin=(32, 64))
    assert find_mark(iter(torch.cat([torch.cat([whole[:, :, :64, 32:], patch], 2)]))).shift[0] == provenance.TILE - 32


def test_a_file_is_verified(clips, capsys):
    report = verify(clips / "marked.mp4")
    assert report.mark.found and report.manifest["model"] == "vasa-mini" and report.made_by_vasa
    plain = verify(clips / "plain.mp4")
    assert not plain.mark.found and not plain.made_by_vasa
    assert cli.main(["verify", str(clips / "marked.mp4"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["made_by_vasa"] and said["mark"]["found"]
    assert cli.main(["verify", str(clips / "plain.mp4")]) == 0
    assert "no sign" in capsys.readouterr().out


def test_metadata_alone_is_reported_as_such(clips, tmp_path):
    with VideoWriter(tmp_path / "typed.mp4", SIZE, 25, None, {"generator": "vasa 9"}) as writer:
        writer.write(moving())
    report = verify(tmp_path / "typed.mp4")
    assert report.made_by_vasa and not report.mark.found


def test_what_is_no_video_is_refused(tmp_path, capsys):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(InputError, match="not a readable"):
        verify(tmp_path / "a.mp4")
    assert cli.main(["verify", str(tmp_path / "missing.mp4")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_without_a_key_nothing_is_signed_and_with_a_broken_one_the_video_stays(clips, monkeypatch):
    path = clips / "marked.mp4"
    before = path.read_bytes()
    monkeypatch.delenv(signature.CERTIFICATES, raising=False)
    assert signature.sign_as_configured(path, {}) is None
    monkeypatch.setenv(signature.CERTIFICATES, str(clips / "none.pem"))
    monkeypatch.setenv(signature.PRIVATE_KEY, str(clips / "none.key"))
    assert "not signed" in signature.sign_as_configured(path, {})
    assert path.read_bytes() == before


def test_a_signature_is_made_read_and_breaks_with_the_file(clips, tmp_path, monkeypatch):
    pytest.importorskip("c2pa")
    root, chain, key = _certificates(tmp_path)
    path = tmp_path / "signed.mp4"
    path.write_bytes((clips / "marked.mp4").read_bytes())
    monkeypatch.setenv(signature.CERTIFICATES, str(chain))
    monkeypatch.setenv(signature.PRIVATE_KEY, str(key))
    assert signature.sign_as_configured(path, {"seed": 3}) is None
    report = verify(path)
    assert report.c2pa == "Valid" and report.c2pa_issuer == "vasa test" and report.mark.found and report.manifest
    assert verify(path, trust=root).c2pa == "Trusted"
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 400
    data[start] ^= 1
    path.write_bytes(data)
    assert signature.read_signature(path)[0] == "Invalid"


def _certificates(folder):
    """A root, a signer it vouches for (with the root behind it), and the signer's key, as PEM files."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common):
        parts = [(NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "vasa test"), (NameOID.COMMON_NAME, common)]
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])

    def usage(signs, vouches):
        rest = {"content_commitment": False, "key_encipherment": False, "data_encipherment": False}
        rest |= {"key_agreement": False, "crl_sign": vouches, "encipher_only": False, "decipher_only": False}
        return x509.KeyUsage(digital_signature=signs, key_cert_sign=vouches, **rest)

    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]

    def certificate(subject, public, *extensions):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(named("root")).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        builder = builder.not_valid_after(now + datetime.timedelta(30))
        vouching = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        identity = x509.SubjectKeyIdentifier.from_public_key(public)
        for extension, critical in (*extensions, (vouching, False), (identity, False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256())

    top = certificate(
        named("root"), keys[0].public_key(), (x509.BasicConstraints(True, None), True), (usage(False, True), True)
    )
    mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    leaf = certificate(
        named("signer"), keys[1].public_key(),
        (x509.BasicConstraints(False, None), True), (usage(True, False), True), (mail, False),
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    root, chain, key = folder / "root.pem", folder / "chain.pem", folder / "key.pem"
    root.write_bytes(top.public_bytes(pem))
    chain.write_bytes(leaf.public_bytes(pem) + top.public_bytes(pem))
    key.write_bytes(keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return root, chain, key
