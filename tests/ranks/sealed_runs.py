"""Runs under policy=eu-sealed whose archive is a bucket of a real object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.sealing.keys import IDENTITY_FILE, Identities, new_identity
from aiftrain.run.folder import RunFolder
from aiftrain.run.storage import ArchiveSpec
from tests.rigs.buckets import new_bucket, open_store
from tests.rigs.ceph import CephRig


@dataclass(frozen=True)
class SealedBucket:
    """A bucket of the rig's first user, and the identity that opens what is sealed there."""

    rig: CephRig
    archive: ArchiveSpec
    identity_file: Path

    @classmethod
    def new(cls, rig: CephRig, folder: Path) -> SealedBucket:
        new_identity(folder / "identity.txt")
        return cls(rig, new_bucket(rig, "runs"), folder / "identity.txt")

    @property
    def identities(self) -> Identities:
        return Identities.read(self.identity_file)

    def overrides(self, endpoint: str | None = None) -> tuple[str, ...]:
        """What has a run ship there, or through another endpoint."""
        seats = "location: FI, operator: Us, operator_seat: FI, owner_seat: FI"
        facts = f"name: rig, title: A rig, {seats}, ca_file: {self.rig.ca_file}"
        service = f"{{{facts}, endpoint: '{endpoint or self.rig.endpoint}'}}"
        return (
            "policy=eu-sealed",
            f"storage.archives=[{{address: '{self.archive.address}', service: {service}}}]",
            "storage.seal.where=archives",
            f"storage.seal.recipients={self.identities.public}",
        )

    @property
    def keys(self) -> dict[str, str]:
        """The environment of who may use the bucket."""
        user = self.rig.users[0]
        names = ("AIFTRAIN_S3_RIG_ACCESS_KEY_ID", "AIFTRAIN_S3_RIG_SECRET_ACCESS_KEY")
        return dict(zip(names, (user.access_key, user.secret_key), strict=True))

    @property
    def opening(self) -> dict[str, str]:
        """The environment of who may open what is sealed there, too."""
        return self.keys | {IDENTITY_FILE: str(self.identity_file)}

    def open(self, run: RunFolder) -> Archive:
        return Archive(open_store(self.rig, self.archive, patience=60.0), run.read_spec().lineage)

    def told(self, run: RunFolder) -> Iterator[Path]:
        """Files of a run that have a secret in them."""
        secrets = [self.rig.users[0].secret_key, self.identity_file.read_text().splitlines()[-1]]
        files = [file for file in run.path.rglob("*") if file.is_file()]
        assert files
        for file in files:
            content = file.read_bytes()
            if any(secret.encode() in content for secret in secrets):
                yield file
