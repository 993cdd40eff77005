"""`checkpoints copy FROM TO`: a checkpoint to another place; again after whatever happened, and it goes on."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from aiftrain.checkpoint.archive import Archive
from aiftrain.checkpoint.archived_custody import bring_custody
from aiftrain.checkpoint.catalog import Catalog, NoCheckpointError
from aiftrain.checkpoint.copying import copy, copy_sealed
from aiftrain.checkpoint.custody import NAME as CUSTODY
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.manifest import Manifest
from aiftrain.checkpoint.places import Away, Home
from aiftrain.checkpoint.progress import reading_back
from aiftrain.checkpoint.saved import Saved, saved_away
from aiftrain.checkpoint.sealing.stored import SealedCheckpoint
from aiftrain.checkpoint.stores.base import Store
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.stores.opening import open_store
from aiftrain.checkpoint.verify import check_files
from aiftrain.checkpoint.weights_only import refuse_to_resume, weights_only
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import complete_step, is_bucket, one_run_at, spec_of
from aiftrain.cli.checkpoints.signers import demanded
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_FAILED, EXIT_OK, ConfigError, DamagedError, MachineError, UserError
from aiftrain.run.folder import RunFolder
from aiftrain.run.lock import RunLock
from aiftrain.run.policy import PolicySpec
from aiftrain.run.residency import archive_problems, folder_problems
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec


def run(options: argparse.Namespace) -> int:
    if not is_bucket(options.to) and Path(options.place).resolve() == Path(options.to).resolve():
        raise UserError(f"{options.to} is where it is copied from: name another place")
    origin = one_run_at(options)
    copied, damaged, custody = list[int](), dict[int, str](), ""
    with Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        for step in _steps(origin, options):
            told = f"is at {options.to} (read back)"
            try:
                custody = _copy(origin, step, options, bar) or custody
                copied.append(step)
            except (DamagedError, NoCheckpointError) as error:
                if not options.all:
                    raise
                told = f"is not copied: {error}"
                if isinstance(error, DamagedError):
                    damaged[step] = str(error)
            bar.end()
            bar.console.print(f"step {step:,} {told}", soft_wrap=True, markup=False)
        if custody:
            bar.console.print(custody, soft_wrap=True, markup=False)
    if options.json:
        whereabouts = {"from": origin.address, "to": options.to, "lineage": origin.lineage}
        output.print_json(whereabouts | {"steps": copied, "damaged": damaged, "custody": custody or None})
    return EXIT_FAILED if damaged or custody else EXIT_OK


def _steps(origin: Home | Away, options: argparse.Namespace) -> list[int]:
    """With --all those that are known to be damaged as well, so that they are told of."""
    steps = [each.step for each in origin.summaries() if each.status != "incomplete"] if options.all else []
    return steps or [complete_step(origin, options.step)]


def _copy(origin: Home | Away, step: int, options: argparse.Namespace, bar: Bar) -> str | None:
    """What is to be told of custody. NoCheckpointError where the run has removed the step at home meanwhile."""
    try:
        return _bring(origin, step, options, bar)
    except (MachineError, NoCheckpointError) as error:
        if isinstance(origin, Home) and not origin.catalog.has(step):
            raise NoCheckpointError(f"{origin.catalog.step_folder(step)} is no more: its run has removed it") from error
        raise


def _bring(origin: Home | Away, step: int, options: argparse.Namespace, bar: Bar) -> str | None:
    if not is_bucket(options.to) and RunFolder(options.to).run_json.exists():
        _bring_home(origin, step, Home.of(RunFolder(options.to)), options, bar)
        return None
    return _bring_away(origin, step, spec_of(options.to, options), options, bar)


def _bring_home(origin: Home | Away, step: int, home: Home, options: argparse.Namespace, bar: Bar) -> None:
    if isinstance(origin, Home):
        raise UserError(f"{options.to} is a run folder too: copy to an archive, and from there home")
    if origin.lineage != home.lineage:
        raise UserError(f"{options.to} is the run {home.lineage}, the checkpoint one of {origin.lineage}")
    if options.weights_only:
        raise UserError(f"{options.to} is a run folder, and no run goes on from weights only: name an archive's folder")
    entry = origin.contents(step)
    refuse_to_resume(entry.manifest, entry.address)
    demanded(home.spec, options).check(saved_away(entry))
    lock = RunLock(home.folder.lock)
    lock.acquire()  # a run at work saves there
    try:
        bar.begin(f"step {step:,} to {home.address}", entry.manifest.size)
        if not _is_there(home.catalog, entry.manifest, bar):
            fetch(entry, home.catalog, bar.advance)
    finally:
        lock.release()


def _is_there(catalog: Catalog, manifest: Manifest, bar: Bar) -> bool:
    """Whether home has this checkpoint, whole. Where files of it are damaged it is set aside, as a start would do."""
    with contextlib.suppress(DamagedError):  # of home's manifest: `fetch` sets it aside
        here = catalog.read(manifest.step)
        if here is None or here.manifest.digest != manifest.digest:
            return False
        faults = check_files(here.folder, manifest.files, reading_back(bar.advance))
        if not faults:
            return True
        aside = catalog.set_aside(manifest.step)
        bar.console.print(f"{faults[0]}: set aside as {aside}", soft_wrap=True, markup=False)
    return False


def _bring_away(origin: Home | Away, step: int, to: ArchiveSpec, options: argparse.Namespace, bar: Bar) -> str | None:
    stored = origin.archive.find(step) if isinstance(origin, Away) else None
    sealed = stored if isinstance(stored, SealedCheckpoint) and not options.weights_only else None
    if sealed and to.is_folder and not options.public_key:  # nobody needs to open it
        return _copy_sealed(sealed, origin, Archive(_store(to, None), origin.lineage), bar)
    saved = origin.find(step)
    run = origin.spec if isinstance(origin, Home) else saved.attachments.spec()
    signers = demanded(run, options)
    saved = signers.check(saved)
    archive = Archive(_store(to, run), origin.lineage, run.storage.seal.for_archives if run else ())
    if options.weights_only:
        _refuse_in_the_way(run, to, archive)
        _copy_weights(saved, archive, bar)
        return None
    if sealed:
        if signers.keys:
            bar.begin(f"step {step:,}, verified", saved.manifest.size)
            saved.check_whole(bar.advance)
        return _copy_sealed(sealed, origin, archive, bar)
    told = _bring_custody(origin, archive)
    bar.begin(f"step {step:,} to {to.address}", saved.manifest.size)
    copy(saved, archive, bar.advance)
    return told


def _copy_weights(saved: Saved, archive: Archive, bar: Bar) -> None:
    step = f"step {saved.manifest.step:,}"
    bar.begin(f"{step}, verified", saved.manifest.size)
    with weights_only(saved, bar.advance) as weights:
        bar.begin(f"{step} to {archive.store.address}", weights.manifest.size)
        copy(weights, archive, bar.advance)


def _copy_sealed(sealed: SealedCheckpoint, origin: Home | Away, archive: Archive, bar: Bar) -> str | None:
    told = _bring_custody(origin, archive)
    bar.begin(f"step {sealed.step:,} to {archive.store.address}", sum(file.size for file in sealed.envelope.files))
    copy_sealed(sealed, archive, bar.advance)
    return told


def _bring_custody(origin: Home | Away, archive: Archive) -> str | None:
    """Before each checkpoint, as `ship` does. What is to be told where it cannot be: no reason not to copy."""
    archive.store.check_private()
    try:
        fits = bring_custody(origin.custody(), archive)
    except DamagedError as error:
        return f"{error}. The checkpoints were copied without it"
    return None if fits else f"{archive.address} has another {CUSTODY}, which does not go on from this one: it stays"


def _store(to: ArchiveSpec, run: RunSpec | None) -> Store:
    """Where a copy goes. ConfigError where the run's policy does not let it; an unknown run has the default one."""
    if to.is_folder:
        policy = run.policy if run else PolicySpec()
        if problems := list(folder_problems(policy, "checkpoints copy", Path(to.address))):
            raise ConfigError(problems)
        return FolderStore(Path(to.address))
    if run is None:
        assert to.service is not None, "a bucket is of a service"
        raise ConfigError(archive_problems(PolicySpec(), to.service, sealed=False))
    return open_store(to, run)


def _refuse_in_the_way(run: RunSpec | None, to: ArchiveSpec, archive: Archive) -> None:
    """UserError where the run's own checkpoint of that step is, or is to go: an archive holds one of each step."""
    own = [each.address.rstrip("/") for each in run.storage.archives] if run else []
    if to.address.rstrip("/") in own or archive.store.entry(f"{archive.lineage}/{CUSTODY}"):
        raise UserError(f"{to.address} is an archive of this run's complete checkpoints: choose another place")
