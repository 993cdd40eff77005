"""`storage check ADDRESS`: a bucket or a folder is tried, with the keys that a run would find."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from aiftrain.plan.groups import Groups
    from aiftrain.run.storage import ArchiveSpec


def run(address: str, groups: Groups, *, as_json: bool) -> int:
    """The exit code: whether checkpoints may go there."""
    from aiftrain.launch.storage_check import check_storage

    checks = check_storage(_place(address, groups))
    fit = all(check.state != "fail" for check in checks)
    if as_json:
        output.print_json({"address": address, "fit": fit, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(check.state, check.name, f"{check.found}. {check.advice}".rstrip(". ")) for check in checks]
        output.show(output.table(("", "what", "found"), rows), output.console())
        output.console().print(f"\n{'fit' if fit else 'not fit'} to hold checkpoints", soft_wrap=True)
    return EXIT_OK if fit else EXIT_FAILED


def _place(address: str, groups: Groups) -> ArchiveSpec:
    """A folder may be named from where the person stands."""
    from aiftrain.plan.archives import archive_at

    return archive_at(address if ":" in address else str(Path(address).resolve()), groups)
