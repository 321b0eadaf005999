"""C2PA: a signed statement in the file that it was made by a trained algorithm. Needs the extra `provenance`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import InputError
from .io.files import open_input, replacing

CERTIFICATES, PRIVATE_KEY = "VASA_C2PA_CERTIFICATES", "VASA_C2PA_KEY"
"""Environment variables that name the signer's PEM files; with both, every video is signed."""
_KINDS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}


def read_signature(path: str | os.PathLike, trust: str | os.PathLike | None = None) -> tuple[str | None, str | None]:
    """(state, issuer) of a file's C2PA signature; (None, None) where it has none.

    Raises:
        ImportError: c2pa-python is not installed.
        InputError: a missing file.
    """
    import c2pa

    settings: dict[str, Any] = {"verify": {"verify_trust": trust is not None}}
    if trust is not None:
        with open_input(trust, "certificate") as file:
            settings["trust"] = {"trust_anchors": file.read().decode("ascii", "replace")}
    with open_input(path, "video") as file:
        try:
            kind = _KINDS.get(Path(path).suffix.lower(), "video/mp4")
            with c2pa.Context.from_dict(settings) as context, c2pa.Reader(kind, file, context=context) as reader:
                signed = (reader.get_active_manifest() or {}).get("signature_info", {})
                return str(reader.get_validation_state()), signed.get("issuer")
        except c2pa.C2paError:
            return None, None


def sign(
    path: str | os.PathLike,
    certificates: str | os.PathLike,
    private_key: str | os.PathLike,
    manifest: dict[str, Any] | None = None,
) -> None:
    """Sign a video with C2PA, in place: "created by a trained algorithm", and our manifest beside it.

    Args:
        path: mp4 file.
        certificates: PEM file, the signer's certificate first, then those that vouch for it.
        private_key: PEM file, ES256.
        manifest: what else to state.

    Raises:
        ImportError: c2pa-python is not installed.
        InputError: keys that cannot be used; the video stays as it was.
    """
    import c2pa

    created = {
        "action": "c2pa.created",
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    }
    statement = {
        "claim_generator_info": [{"name": "vasa"}],
        "title": Path(path).name,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": "io.vasa.generation", "data": manifest or {}},
        ],
    }
    with open_input(certificates, "certificate") as file:
        chain = file.read()
    with open_input(private_key, "private key") as file:
        key = file.read()
    try:
        information = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None)
        with (
            replacing(path) as signed,
            c2pa.Signer.from_info(information) as signer,
            c2pa.Context() as context,
            c2pa.Builder(json.dumps(statement), context) as builder,
            open(path, "rb") as source,
            open(signed, "w+b") as target,
        ):
            builder.sign(signer, "video/mp4", source, target)
    except c2pa.C2paError as error:
        raise InputError(
            f"the video could not be signed with {certificates} ({error}); it is complete and carries the mark"
        ) from error


def sign_as_configured(path: str | os.PathLike, manifest: dict[str, Any]) -> str | None:
    """Sign a finished video if the environment names a certificate and a key.

    Returns:
        What the user should know: None where nothing is configured or all went well.
    """
    chain, key = os.environ.get(CERTIFICATES), os.environ.get(PRIVATE_KEY)
    if not (chain and key) or Path(path).suffix.lower() not in _KINDS:
        return None
    try:
        sign(path, chain, key, manifest)
    except ImportError:
        return 'the video is not signed: C2PA is configured, but c2pa-python is missing; pip install "vasa[provenance]"'
    except InputError as error:
        return f"the video is not signed: {error}"
    return None
