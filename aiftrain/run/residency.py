"""What a policy says of the places that a run sends bytes to. The same functions decide in every program.

`plan` calls them and shows all that they refuse, so does a launch before the queue, so does rank 0 before it begins,
and who opens a store asks again with the facts that it then has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from aiftrain.errors import ConfigError, Problem
from aiftrain.run import quiet
from aiftrain.run.egress import CHECKPOINTS, Host
from aiftrain.run.mounts import fuse_program
from aiftrain.run.policy import Fact, PolicySpec, address_of, spelled, split_host
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec, ServiceSpec

TEAM = "team"  # as a service's `keys_held_by`: nobody but who owns the data

_FACTS: tuple[tuple[Fact, str, str], ...] = (  # of a service, the key of a rule that judges it, and what it is
    ("location", "locations", "the place of its data"),
    ("operator_seat", "operator_seats", "its operator's seat"),
    ("owner_seat", "owner_seats", "its owner's seat"),
)


def check(spec: RunSpec, folder: Path) -> None:
    """Raises ConfigError with all that the run's policy refuses of it, in its folder on this machine."""
    problems = [*policy_problems(spec), *mount_problems(spec, folder)]
    if problems:
        raise ConfigError(problems)


def policy_problems(spec: RunSpec) -> list[Problem]:
    """All that the run's policy refuses of the run as it is described."""
    return [*_storage_problems(spec), *_tracking_problems(spec), *_environment_problems(spec)]


def mount_problems(spec: RunSpec, folder: Path) -> Iterator[Problem]:
    """Folders of the run that a program of a user's makes look like folders: what is behind them may be anywhere."""
    home = {"run_dir": folder, "data.cache_dir": Path(spec.data.cache_dir)}
    home |= {"storage.path": Path(spec.storage.path)} if spec.storage.path else {}
    archives = (("storage.archives", Path(each.address)) for each in spec.storage.archives if each.is_folder)
    for where, place in (*home.items(), *archives):
        yield from folder_problems(spec.policy, where, place)


def folder_problems(policy: PolicySpec, where: str, folder: Path) -> Iterator[Problem]:
    """Why a folder may hold nothing of a run: it is no file system of the kernel's, and none that the policy names."""
    program = fuse_program(folder)
    if program is not None and program not in policy.fuse:
        found = f"{folder} is a file system of {program}, which may lead to any other machine"
        yield Problem(where, found, f"a folder of the site's; or, if this is one, policy.fuse=[{program}]")


def tracking_hosts(spec: RunSpec) -> dict[Host, str]:
    """The server that metrics go to, with the rule that allows it."""
    online = spec.tracking.wandb == "online" and not list(_tracking_problems(spec))
    return {address_of(spec.tracking.base_url or ""): "policy.wandb_hosts"} if online else {}


def leaves(spec: RunSpec) -> list[str]:
    """What of the run leaves the site, and where it goes, in words; empty: nothing does."""
    tracking = spec.tracking
    return [
        *(f"checkpoints to {each.address} ({each.service.title})" for each in spec.storage.archives if each.service),
        *([f"metrics to {tracking.base_url}"] if tracking.wandb == "online" else []),
    ]


def archive_problems(policy: PolicySpec, service: ServiceSpec, *, sealed: bool) -> list[Problem]:
    """Why checkpoints may not lie at a storage service; nothing where they may."""
    return [
        *_fact_problems(policy, service),
        *_name_problems(policy, service),
        *_seal_problems(policy, service, sealed),
    ]


def archive_hosts(archives: Iterable[ArchiveSpec]) -> dict[Host, str]:
    """Host and port of each archive at a service, and the rule that allows them; for archives without problems."""
    return {address_of(each.service.endpoint): CHECKPOINTS for each in archives if each.service}


def _storage_problems(spec: RunSpec) -> Iterator[Problem]:
    """Archives. A folder is one of the site's, as home is."""
    policy, archives = spec.policy, spec.storage.archives
    for archive in archives:
        if archive.service:
            sealed = bool(spec.storage.seal.for_archives)
            yield from archive_problems(policy, archive.service, sealed=sealed)
    if len(archives) + 1 < policy.copies:
        found = f"every checkpoint is to lie at {policy.copies} places, and home is the only one"
        yield Problem("policy.copies", found, "storage.archives=[/A/FOLDER], or a bucket: s3://SERVICE/BUCKET")


def _fact_problems(policy: PolicySpec, service: ServiceSpec) -> Iterator[Problem]:
    """Jurisdictions. What is not known of a service is not allowed, unless the rule does without it."""
    rule = policy.checkpoints
    for fact, key, words in _FACTS:
        found, allowed = getattr(service, fact), getattr(rule, key)
        if found in policy.countries(allowed) or (found is None and fact in rule.unknown):
            continue
        is_what = "is not known" if found is None else f"is in {found}"
        where = f"policy.checkpoints.{key}"
        fits = f"a service where it is in {_listed(allowed)}" if allowed else _opening(policy)
        yield Problem(where, f"{service.name}: {words} {is_what}, and policy={policy.name} does not allow that", fits)


def _opening(policy: PolicySpec) -> str:
    return f"policy={policy.name} lets no checkpoints leave the site: policy=eu, or another of conf/policy"


def _name_problems(policy: PolicySpec, service: ServiceSpec) -> Iterator[Problem]:
    """Operators and hosts, where the rule names some."""
    rule = policy.checkpoints
    if rule.operators is not None and service.operator not in rule.operators:
        found = f"{service.name} is operated by {service.operator or 'nobody that is known'}, who is not among them"
        yield Problem("policy.checkpoints.operators", found, _listed(rule.operators))
    if rule.hosts is not None and address_of(service.endpoint) not in map(split_host, rule.hosts):
        found = f"{service.name} is at {service.endpoint}, which is not among them"
        yield Problem("policy.checkpoints.hosts", found, _listed(rule.hosts))


def _seal_problems(policy: PolicySpec, service: ServiceSpec, sealed: bool) -> Iterator[Problem]:
    rule = policy.checkpoints
    if sealed or rule.seal == "none" or (rule.seal == "keys" and service.keys_held_by == TEAM):
        return
    holder = f"its {service.keys_held_by}" if service.keys_held_by else "somebody unknown"
    found = f"{service.name} would hold checkpoints in the clear, under keys that {holder} holds"
    how = "storage.seal.where=archives 'storage.seal.recipients=[age1...]' (`python -m aiftrain keys new FILE`)"
    yield Problem("policy.checkpoints.seal", found, f"policy={policy.name} asks for a seal: {how}")


def _tracking_problems(spec: RunSpec) -> Iterator[Problem]:
    """wandb sends only to a server that the policy names, and encrypted."""
    tracking, policy = spec.tracking, spec.policy
    if tracking.wandb != "online":
        return
    url = tracking.base_url or ""
    if not url.startswith("https://"):
        found = f"{url} is not encrypted: who is on the way can read the metrics"
        yield Problem("tracking.base_url", found, "tracking.base_url=https://...")
    if address_of(url) not in map(split_host, policy.wandb_hosts):
        found = f"tracking=online sends to {url}, and policy={policy.name} allows {_listed(policy.wandb_hosts)}"
        fits = f"tracking=offline; or, if its operator may have them, policy.wandb_hosts=[{spelled(*address_of(url))}]"
        yield Problem("policy.wandb_hosts", found, fits)


def _environment_problems(spec: RunSpec) -> Iterator[Problem]:
    """Variables that the factory's file sets, with which a library would phone home."""
    for name, value in spec.factory.env.items():
        needed = quiet.VARIABLES.get(name, value)
        if value != needed:
            found = f"{value!r} lets a library phone home"
            yield Problem(f"factory.env.{name}", found, f"factory.env.{name}={needed}, or leave it out")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
