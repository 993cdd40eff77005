"""The keys of a storage service: from variables, or from files that sites' own tools write (lumio-conf, allas-conf).

In this order: AIFTRAIN_S3_<SERVICE>_ACCESS_KEY_ID and ..._SECRET_ACCESS_KEY (and ..._SESSION_TOKEN); AWS_ACCESS_KEY_ID
and its like, unless AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL names another host; remotes of rclone.conf and files of
s3cmd whose endpoint is the service's. Keys are kept in memory alone, and no message, log or `repr` has them.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from aiftrain.errors import UserError
from aiftrain.run.storage import ServiceSpec

_OPEN_TO_OTHERS = 0o077
_ENCRYPTED = "RCLONE_ENCRYPT"


@dataclass(frozen=True)
class Credentials:
    """Two keys, perhaps a token, and where they were found: `source` alone is ever shown."""

    source: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def find_credentials(
    service: ServiceSpec, environ: Mapping[str, str] = os.environ, home: Path | None = None
) -> Credentials:
    """The keys of `service`. UserError where there are none, or several, or where others may read their file."""
    prefix = f"AIFTRAIN_S3_{service.name.upper().replace('-', '_')}"
    home = home or Path(environ.get("HOME") or Path.home())
    if found := _of_variables(environ, f"{prefix}_") or _of_aws_variables(environ, service.host):
        return found
    chosen = environ.get(f"{prefix}_REMOTE")
    candidates = [keys for keys in _of_files(environ, home, service.host) if chosen in (None, _name(keys))]
    distinct = {(keys.access_key, keys.secret_key): keys for keys in reversed(candidates)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if distinct:
        names = ", ".join(sorted({_name(keys) for keys in distinct.values()}))
        raise UserError(f"several keys for {service.host} were found: {prefix}_REMOTE=NAME chooses one of {names}")
    wanted = f" called {chosen} ({prefix}_REMOTE)" if chosen else ""
    raise UserError(
        f"no keys{wanted} for {service.name} ({service.host}) were found: neither in {prefix}_ACCESS_KEY_ID and "
        f"{prefix}_SECRET_ACCESS_KEY, nor in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor for this endpoint in "
        "rclone.conf or ~/.s3cfg*"
    )


def _name(keys: Credentials) -> str:
    """`lumi-462000001-private` of `lumi-462000001-private in FILE`."""
    return keys.source.partition(" in ")[0]


def _of_variables(environ: Mapping[str, str], prefix: str) -> Credentials | None:
    access, secret = environ.get(f"{prefix}ACCESS_KEY_ID"), environ.get(f"{prefix}SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        missing = f"{prefix}SECRET_ACCESS_KEY" if access else f"{prefix}ACCESS_KEY_ID"
        raise UserError(f"{missing} is not set, but the other key is")
    if not access or not secret:
        return None
    return Credentials(f"{prefix}ACCESS_KEY_ID", access, secret, environ.get(f"{prefix}SESSION_TOKEN"))


def _of_aws_variables(environ: Mapping[str, str], host: str) -> Credentials | None:
    """Keys in AWS_* are of another place where the endpoint beside them says so."""
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    return None if endpoint and _host(endpoint) != host else _of_variables(environ, "AWS_")


def _of_files(environ: Mapping[str, str], home: Path, host: str) -> Iterator[Credentials]:
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    rclone = Path(environ.get("RCLONE_CONFIG") or config / "rclone" / "rclone.conf")
    yield from _keys_in(rclone, host, endpoint="endpoint", access="access_key_id", secret="secret_access_key")
    named = environ.get("S3CMD_CONFIG")
    for file in [Path(named)] if named else sorted(home.glob(".s3cfg*")):
        yield from _keys_in(file, host, endpoint="host_base", access="access_key", secret="secret_key")


def _keys_in(file: Path, host: str, *, endpoint: str, access: str, secret: str) -> Iterator[Credentials]:
    """Those of a file's sections that are for the host, and not for writing what anybody may read."""
    for name, section in _sections(file).items():
        here = _host(section.get(endpoint, "")) == host and section.get("acl", "private") == "private"
        if here and section.get(access) and section.get(secret):
            _check_private(file)
            yield Credentials(f"{name} in {file}", section[access], section[secret], section.get("session_token"))


def _sections(file: Path) -> dict[str, dict[str, str]]:
    """An INI file; nothing where there is none. UserError, which repeats no line of it, where it cannot be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        text = file.read_text(encoding="utf-8")
        parser.read_string(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError):
        if _is_encrypted(file):
            return {}
        raise UserError(f"{file} cannot be read as sections of KEY = VALUE") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _is_encrypted(file: Path) -> bool:
    """Whether rclone has encrypted its configuration: it is then of no use here."""
    return _ENCRYPTED.encode() in file.read_bytes()[:4096]


def _host(endpoint: str) -> str:
    return (urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or "").lower()


def _check_private(file: Path) -> None:
    if file.stat().st_mode & _OPEN_TO_OTHERS:
        raise UserError(f"others may read the keys in {file}: chmod 600 {file}")
