"""Small objects that are written to see what a service does with them, and are gone afterwards with all versions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.errors import AiftrainError


@contextmanager
def probe(client: Client, prefix: str) -> Iterator[str]:
    """A key below `prefix` that nobody else uses. What cannot be removed in the end is left: it was a look alone."""
    key = probe_key(prefix)
    try:
        yield key
    finally:
        with suppress(AiftrainError):
            remove_for_good(client, key)


def probe_key(prefix: str) -> str:
    return f"{prefix}.aiftrain-probe-{secrets.token_hex(8)}"


def remove_for_good(client: Client, key: str) -> None:
    """Remove an object; where the bucket keeps versions all of them, those under governance retention too."""
    what = f"remove {key}"
    client.call(what, "delete_object", Key=key)
    kept = client.call(what, "list_object_versions", Prefix=key)
    for each in (*kept.get("Versions", ()), *kept.get("DeleteMarkers", ())):
        client.call(what, "delete_object", Key=key, VersionId=each["VersionId"], BypassGovernanceRetention=True)
