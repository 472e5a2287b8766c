"""The secret key of pseudonyms and of the hashes of what was taken out."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import SpecError
from luthier.prepare.privacy.base import Privacy
from luthier.prepare.privacy.scan import normal

_LEAST = 16


@dataclass(frozen=True)
class Key:
    """Who has it can tell which pseudonym a value gets; nobody else can."""

    secret: bytes
    made: Path | None = None
    """The file, where this call made it."""

    def draw(self, *parts: str) -> int:
        """A number that looks random and depends on the key and the parts alone (HMAC-SHA256, RFC 2104)."""
        said = "\x1f".join(parts).encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(self.secret, said, "sha256"), "big")

    def hash(self, value: str) -> str:
        """Stands for a value that was taken out, case and punctuation aside; 24 hexadecimal digits."""
        return f"{self.draw('value', normal(value)):064x}"[:24]

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart without telling either."""
        return hashlib.sha256(b"luthier privacy key\0" + self.secret).hexdigest()[:16]


def open_key(spec: Privacy, root: Path, *, make: bool) -> Key | None:
    """The user's key; made where there is none and `make` says so, else None. SpecError for one that cannot be used."""
    if spec.key_env:
        value = os.environ.get(spec.key_env, "").strip()
        if len(value) < _LEAST:
            told = "is not set" if not value else f"has {len(value)} characters"
            raise SpecError(f"prepare.privacy.key_env: the environment variable {spec.key_env} {told}; set it to "
                            f"a secret "
                            f"of at least {_LEAST} characters")
        return Key(value.encode())
    file = root / Path(spec.key_file).expanduser()
    try:
        value = file.read_text("utf-8").strip()
    except FileNotFoundError:
        return _make(file, root) if make else None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"prepare.privacy.key_file: {file} cannot be read: {error}") from None
    if len(value) < _LEAST:
        raise SpecError(f"prepare.privacy.key_file: {file} holds {len(value)} characters, a key has at least "
                        f"{_LEAST}; put "
                        "the key back, or delete the file for a new one (which gives other pseudonyms)")
    return Key(value.encode())


def _make(file: Path, root: Path) -> Key:
    value = secrets.token_hex(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    _keep_from_git(file, root)
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(value + "\n")
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(aside, file)  # unlike a rename this never replaces a key that another process made meanwhile
    except FileExistsError:
        return Key(file.read_text("utf-8").strip().encode())
    finally:
        aside.unlink()
    return Key(value.encode(), made=file)


def _keep_from_git(file: Path, root: Path) -> None:
    """Have git ignore the key: `.luthier/` is ignored as a whole, another folder gets a line in its .gitignore."""
    if (root / ".luthier") in file.parents:
        ignore, line = root / ".luthier" / ".gitignore", "*"
    else:
        ignore, line = file.parent / ".gitignore", f"/{file.name}"
    try:
        known = ignore.read_text("utf-8").splitlines()
    except FileNotFoundError:
        known = []
    if line not in known:
        ignore.write_text("\n".join([*known, line]) + "\n", encoding="utf-8")
