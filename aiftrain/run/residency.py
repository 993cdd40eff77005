"""What a policy says of the places that a run sends bytes to. The same functions decide in every program.

`plan` calls them and shows all that they refuse, so does a launch before the queue, so does rank 0 before it begins,
and who opens a store asks again with the facts that it then has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aiftrain.errors import ConfigError, Problem
from aiftrain.run import quiet
from aiftrain.run.policy import Fact, PolicySpec, Purpose, address_of, spelled, split_host
from aiftrain.run.spec import RunSpec
from aiftrain.run.storage import ArchiveSpec, ServiceSpec

TEAM = "team"  # as a service's `keys_held_by`: nobody but who owns the data

_FACTS: tuple[tuple[Fact, str, str], ...] = (  # of a service, the key of a rule that judges it, and what it is
    ("location", "locations", "the place of its data"),
    ("operator_seat", "operator_seats", "its operator's seat"),
    ("owner_seat", "owner_seats", "its owner's seat"),
)


def check(spec: RunSpec) -> None:
    """Raises ConfigError with all that the run's policy refuses of it."""
    problems = policy_problems(spec)
    if problems:
        raise ConfigError(problems)


def policy_problems(spec: RunSpec) -> list[Problem]:
    """All that the run's policy refuses of the run as it is described."""
    return [*_storage_problems(spec), *_tracking_problems(spec), *_environment_problems(spec)]


def leaves(spec: RunSpec) -> list[str]:
    """What of the run leaves the site, and where it goes, in words; empty: nothing does."""
    tracking = spec.tracking
    return [
        *(f"checkpoints to {each.address} ({each.service.title})" for each in spec.storage.archives if each.service),
        *([f"metrics to {tracking.base_url}"] if tracking.wandb == "online" else []),
    ]


def archive_problems(policy: PolicySpec, service: ServiceSpec, purpose: Purpose, *, sealed: bool) -> list[Problem]:
    """Why bytes of this kind may not lie at a storage service; nothing where they may."""
    return [
        *_fact_problems(policy, service, purpose),
        *_name_problems(policy, service, purpose),
        *_seal_problems(policy, service, purpose, sealed),
    ]


def archive_hosts(archives: Iterable[ArchiveSpec]) -> dict[tuple[str, int], str]:
    """Host and port of each archive at a service, and the rule that allows them; for archives without problems."""
    return {address_of(each.service.endpoint): "policy.checkpoints" for each in archives if each.service}


def _storage_problems(spec: RunSpec) -> Iterator[Problem]:
    """Archives. A folder is one of the site's, as home is."""
    policy, archives = spec.policy, spec.storage.archives
    for archive in archives:
        if archive.service:
            sealed = bool(spec.storage.seal.for_archives)
            yield from archive_problems(policy, archive.service, "checkpoints", sealed=sealed)
    if len(archives) + 1 < policy.copies:
        found = f"every checkpoint is to lie at {policy.copies} places, and home is the only one"
        yield Problem("policy.copies", found, "storage.archives=[/A/FOLDER], or a bucket: s3://SERVICE/BUCKET")


def _fact_problems(policy: PolicySpec, service: ServiceSpec, purpose: Purpose) -> Iterator[Problem]:
    """Jurisdictions. What is not known of a service is not allowed, unless the rule does without it."""
    rule = policy.rules()[purpose]
    for fact, key, words in _FACTS:
        found, allowed = getattr(service, fact), getattr(rule, key)
        if found in policy.countries(allowed) or (found is None and fact in rule.unknown):
            continue
        is_what = "is not known" if found is None else f"is in {found}"
        where = f"policy.{purpose}.{key}"
        fits = f"a service where it is in {_listed(allowed)}" if allowed else _opening(policy, purpose)
        yield Problem(where, f"{service.name}: {words} {is_what}, and policy={policy.name} does not allow that", fits)


def _opening(policy: PolicySpec, purpose: Purpose) -> str:
    return f"policy={policy.name} lets no {purpose} leave the site: policy=eu, or another of conf/policy"


def _name_problems(policy: PolicySpec, service: ServiceSpec, purpose: Purpose) -> Iterator[Problem]:
    """Operators and hosts, where the rule names some."""
    rule = policy.rules()[purpose]
    if rule.operators is not None and service.operator not in rule.operators:
        found = f"{service.name} is operated by {service.operator or 'nobody that is known'}, who is not among them"
        yield Problem(f"policy.{purpose}.operators", found, _listed(rule.operators))
    if rule.hosts is not None and address_of(service.endpoint) not in map(split_host, rule.hosts):
        found = f"{service.name} is at {service.endpoint}, which is not among them"
        yield Problem(f"policy.{purpose}.hosts", found, _listed(rule.hosts))


def _seal_problems(policy: PolicySpec, service: ServiceSpec, purpose: Purpose, sealed: bool) -> Iterator[Problem]:
    rule = policy.rules()[purpose]
    if sealed or rule.seal == "none" or (rule.seal == "keys" and service.keys_held_by == TEAM):
        return
    holder = service.keys_held_by or "nobody knows whom"
    found = f"{service.name} would hold {purpose} in the clear, under keys of {holder}"
    yield Problem(f"policy.{purpose}.seal", found, f"seal them: policy={policy.name} asks for it")


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
