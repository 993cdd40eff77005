"""`checkpoints verify`: whether what is at a place is what was written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from aiftrain.checkpoint.listing import Verification, verify
from aiftrain.checkpoint.places import Away, Home
from aiftrain.checkpoint.progress import Progress
from aiftrain.checkpoint.sealing.keys import Identities
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.cli import output
from aiftrain.cli.checkpoints.places import runs_at
from aiftrain.cli.checkpoints.recipients import identities_of
from aiftrain.cli.progress import Bar, Stop
from aiftrain.errors import EXIT_FAILED, EXIT_OK, UserError


def run(options: argparse.Namespace) -> int:
    signer = PublicKey.read(options.public_key) if options.public_key else None
    identities, runs = identities_of(options), runs_at(options)
    with Stop() as stop, Bar(output.console(as_json=options.json), stop) as bar:
        found = [(run, _verify(run, options.step, signer, identities, bar)) for run in runs]
    damaged = any(each.faults for _, verifications in found for each in verifications)
    if options.json:
        _print_json(options.place, found, signer, opened=identities is not None)
    else:
        whole = f"signed with {signer.fingerprint[:16]}, and intact" if signer else "intact"
        for place, verifications in found:
            _show(place, verifications, whole)
        if not identities and any(_has_sealed(place) for place in runs):
            output.console().print("what is sealed was compared as it is stored: --identity FILE would open it")
    return EXIT_FAILED if damaged else EXIT_OK


def _has_sealed(place: Home | Away) -> bool:
    return isinstance(place, Away) and any(place.archive.is_sealed(step) for step in place.archive.steps())


def _verify(
    place: Home | Away, step: int | None, signer: PublicKey | None, identities: Identities | None, bar: Bar
) -> list[Verification]:
    if isinstance(place, Home):
        found = verify(place.catalog, step, signer, lambda step, size: _begin(place, step, size, bar))
        bar.end()
        return found
    found = list(_verify_away(place, step, signer, identities, bar))
    if not found:
        what = "no checkpoint to verify" if step is None else f"no complete checkpoint of step {step}"
        raise UserError(f"{place.address} has {what}")
    return found


def _verify_away(
    place: Away, step: int | None, signer: PublicKey | None, identities: Identities | None, bar: Bar
) -> Iterator[Verification]:
    for summary in place.summaries():
        if summary.status == "incomplete" or step not in (None, summary.step):
            continue
        progress = _begin(place, summary.step, summary.size, bar)
        faults = place.verify(summary.step, progress, identities, signer)
        yield Verification(summary.step, summary.size, tuple(faults))


def _begin(place: Home | Away, step: int, size: int, bar: Bar) -> Progress:
    bar.begin(f"step {step:,} at {place.address}", size)
    return bar.advance


def _print_json(
    place: str, found: list[tuple[Home | Away, list[Verification]]], signer: PublicKey | None, *, opened: bool
) -> None:
    """`opened`: whether what is sealed was, or else was compared as it is stored."""
    documents = [
        {
            "folder": run.address,
            "lineage": run.lineage,
            "intact": not any(each.faults for each in verifications),
            "checkpoints": [asdict(each) for each in verifications],
        }
        for run, verifications in found
    ]
    signed = {"signed_with": signer.fingerprint if signer else None}
    if isinstance(found[0][0], Home):
        output.print_json(documents[0] | signed)
    else:
        intact = all(each["intact"] for each in documents)
        output.print_json({"place": place, "intact": intact, "opened": opened, "runs": documents} | signed)


def _state(found: Verification, whole: str) -> str:
    """Nothing of a checkpoint need be damaged that nobody signed, or somebody else."""
    if all(fault.file == SIGNATURE for fault in found.faults):
        return "not signed with this key" if found.faults else whole
    return "damaged"


def _show(place: Home | Away, verifications: list[Verification], whole: str) -> None:
    console = output.console()
    if isinstance(place, Away):
        console.print(f"run {place.lineage}", style="bold")
    for each in verifications:
        console.print(f"step {each.step:,}: {_state(each, whole)} ({output.size(each.size)})")
        for fault in each.faults:
            console.print(f"  {fault}", markup=False, soft_wrap=True)
