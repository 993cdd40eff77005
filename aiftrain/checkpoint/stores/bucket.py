"""Opening a bucket: botocore is asked for, the keys are found, and the service is spoken to once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiftrain.checkpoint.stores.credentials import find_credentials
from aiftrain.checkpoint.stores.gate import Gate
from aiftrain.data.files import optional_module
from aiftrain.run.storage import ArchiveSpec

if TYPE_CHECKING:
    from aiftrain.checkpoint.stores.s3.store import S3Store


def open_bucket(archive: ArchiveSpec, gate: Gate | None = None, environ: Mapping[str, str] = os.environ) -> S3Store:
    """The bucket of an archive, found to answer to these keys.

    UserError where botocore or keys are missing or wrong, where the gate is shut, or there is no such bucket;
    MachineError where the service cannot be reached.
    """
    assert archive.service is not None, "a folder is no bucket"
    optional_module("botocore", "s3", f"storage at {archive.address}")
    from aiftrain.checkpoint.stores.s3.store import S3Store

    store = S3Store(archive, find_credentials(archive.service, environ), gate)
    store.check()
    return store
