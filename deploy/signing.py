"""Ed25519 keys (PEM files) and detached signatures of 64 raw bytes."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deploy.errors import UsageError
from deploy.manifest import sha256_hex

_MAX_KEY_BYTES = 16 << 10


def new_key(path: Path) -> Path:
    """Write a private key to `path` (mode 0600) and its public key to `path` + `.pub`; return the latter.

    Raises UsageError where either file exists or cannot be written: a key is never overwritten.
    """
    public_path = path.with_name(path.name + ".pub")
    for taken in (path, public_path):
        if taken.exists():
            raise UsageError(f"{taken}: exists, and a key is never overwritten; choose another name")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        _write_new(path, private, 0o600)
        _write_new(public_path, public, 0o644)
    except OSError as error:
        raise UsageError(f"{path}: cannot write the key ({error.strerror})") from None
    return public_path


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read an unencrypted private key. Raises UsageError."""
    try:
        key = serialization.load_pem_private_key(_read_key(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{path}: not an unencrypted PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: not an Ed25519 key (got {type(key).__name__})")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key. Raises UsageError."""
    try:
        key = serialization.load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path}: not a PEM public key; pass the file that ends in .pub") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: not an Ed25519 key (got {type(key).__name__})")
    return key


def raw_public(key: Ed25519PublicKey) -> bytes:
    """The key's 32 bytes."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def fingerprint(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key: enough for a person to compare."""
    return sha256_hex(raw_public(key))[:16]


def is_signed_by(data: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    """Whether `signature` (64 bytes) is `key`'s over `data`."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the key ({error.strerror})") from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
