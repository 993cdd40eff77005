"""Which checkpoints lie at one place alone, as far as anybody knows."""

from __future__ import annotations

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.ledger import unshipped
from aiftrain.checkpoint.places import Away, Home
from aiftrain.checkpoint.stores.opening import open_store
from aiftrain.errors import AiftrainError
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec


def sole_copies(place: Home | Away) -> set[int]:
    """The steps that must stay here, for no other place is known to have them.

    At home: what has not arrived in every archive of the run. In an archive, where the run's policy asks for two
    copies: what no other archive of the run that can be reached has; its home may be gone.
    """
    if isinstance(place, Home):
        return set(unshipped(place.catalog, [archive.address for archive in place.spec.storage.archives]))
    spec = _spec_of(place)
    if spec is None or spec.policy.copies < 2:
        return set()
    own = place.archive.store.address.rstrip("/")
    others = [archive for archive in spec.storage.archives if archive.address.rstrip("/") != own]
    elsewhere = [step for archive in others for step in _steps_at(archive, spec)]
    return {summary.step for summary in place.summaries()} - set(elsewhere)


def _spec_of(place: Away) -> RunSpec | None:
    try:
        return place.find().attachments.spec()
    except AiftrainError:  # sealed, and no identity here; or nothing complete
        return None


def _steps_at(archive: ArchiveSpec, run: RunSpec) -> list[int]:
    try:
        return Archive(open_store(archive, run), run.lineage).steps()
    except AiftrainError:
        return []
