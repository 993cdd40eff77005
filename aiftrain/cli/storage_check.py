"""`storage check ADDRESS`: a bucket or a folder is tried, with the keys that a run would find."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from aiftrain.cli import output
from aiftrain.errors import EXIT_FAILED, EXIT_OK, UserError

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
    from pydantic import ValidationError

    from aiftrain.plan.archives import with_services
    from aiftrain.run.storage import ArchiveSpec

    [place] = with_services({"archives": [address]}, groups)["archives"]
    try:
        return ArchiveSpec.model_validate({"address": place} if isinstance(place, str) else place)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UserError(f"{address}: {reason.removeprefix('Value error, ')}") from error
