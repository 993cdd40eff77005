"""From what was typed to one plain dictionary. Hydra composes here, in this process, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from yaml import YAMLError

from aiftrain.errors import ConfigError, Problem
from aiftrain.plan import overrides as typed
from aiftrain.plan.archives import with_services
from aiftrain.plan.groups import AUTO, RECIPE, Groups, read_yaml
from aiftrain.plan.here import find_factory, this_node
from aiftrain.plan.init_from import IMPORTED, imported_model
from aiftrain.plan.limits import DATA_ROOT
from aiftrain.plan.node import at_site
from aiftrain.plan.signers import with_keys
from aiftrain.shipped import conf_dir

expand_sweep = typed.expand


def compose(overrides: list[str]) -> dict[str, Any]:
    """The configuration that `overrides` ask for: defaults, factory, recipe, command line, all interpolations resolved.

    Raises ConfigError that lists every override that is none, every choice that does not exist, or every
    value that is missing.
    """
    return to_dict(compose_config(overrides))


def compose_config(overrides: list[str]) -> DictConfig:
    """The same as OmegaConf holds it, interpolations as written, for `--cfg job`."""
    parsed = typed.parse(overrides)
    groups = typed.own_groups(parsed)
    typed.check_choices(parsed, groups)
    recipe = next(str(override.value()) for override in parsed if override.key_or_group == RECIPE)
    with _hydra(groups, recipe):
        try:
            config = hydra_compose("config", _for_hydra(parsed, groups), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError([_explain(error)]) from error
    return _finish(config, parsed, groups)


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Plain Python, interpolations resolved; ConfigError with every key that is still `???`."""
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError([Problem(key, "has no value", f"{key}=...") for key in missing])
        return _resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError([_explain(error)]) from error


def to_yaml(config: DictConfig, *, resolve: bool) -> str:
    """YAML as Hydra's `--cfg job` shows it."""
    try:
        return OmegaConf.to_yaml(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise ConfigError([_explain(error)]) from error


@contextmanager
def _hydra(groups: Groups, recipe: str) -> Iterator[None]:
    """Hydra on conf/ and the recipe. The user's own folders come before the shipped ones; all is undone at the end."""
    store, version = ConfigStore.instance(), VersionBase.instance()
    before, version_before = store.repo, version.version_base
    store.repo = dict(before)
    store.repo.pop(RECIPE, None)
    try:
        for name, file in groups.shipped_recipes(recipe).items():
            group, _, stem = f"{RECIPE}/{name}".rpartition("/")
            store.store(group=group, name=stem, package="_global_", node=read_yaml(file))
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            search_path = GlobalHydra.instance().config_loader().get_search_path()
            for folder in reversed(groups.own):
                search_path.prepend("own", str(folder), "main")
            yield
    finally:
        store.repo = before
        version.version_base = version_before


def _for_hydra(parsed: list[Override], groups: Groups) -> list[str]:
    """The overrides as Hydra takes them, the factory named."""
    factory = AUTO
    overrides = []
    for override in parsed:
        if override.key_or_group == "factory":
            factory = str(override.value())
        elif override.key_or_group == typed.SEARCHPATH:
            overrides.append(typed.searchpath(groups))
        else:
            overrides.append(typed.as_hydra_takes_it(override, groups))
    if factory == AUTO:
        factory = find_factory(groups, os.environ)
    return [f"factory={factory}", *overrides]


def _finish(config: DictConfig, parsed: list[Override], groups: Groups) -> DictConfig:
    """Fill in the recipe's name, the site's nodes and, for a local run on the CPU, what this machine is."""
    recipe, factory = (config.hydra.runtime.choices[group] for group in (RECIPE, "factory"))
    if isinstance(config.get(RECIPE), DictConfig):
        fits = "its first line must be `# @package _global_`, so that its keys are the run's"
        raise ConfigError([Problem(RECIPE, f"the file of recipe '{recipe}' sets keys under `recipe`", fits)])
    with open_dict(config):
        del config["hydra"]
        config.recipe = recipe
        own = groups.default("factory", factory, "hardware")
        if own is not None and OmegaConf.select(config, "hardware.name") == own:
            _describe_nodes(config, parsed)
        if OmegaConf.select(config, "model.name") == IMPORTED:
            _describe_model(config)
        if isinstance(config.get("storage"), DictConfig):
            config.storage = with_services(cast(dict[str, Any], OmegaConf.to_container(config.storage)), groups)
        if isinstance(config.get("policy"), DictConfig):
            config.policy = with_keys(cast(dict[str, Any], OmegaConf.to_container(config.policy)))
        hardware = config.get("hardware")
        if isinstance(hardware, DictConfig) and hardware.get("kind") == "cpu":
            _describe_cpu(hardware, here=OmegaConf.select(config, "factory.scheduler") == "none")
    return config


def _describe_nodes(config: DictConfig, parsed: list[Override]) -> None:
    """The site's own hardware has its nodes as the factory says, but for what was typed."""
    keys = (override.key_or_group.partition("hardware.") for override in parsed)
    typed_keys = {key for before, group, key in keys if group and not before}
    hardware, factory = (
        cast(dict[str, Any], OmegaConf.to_container(config[group])) for group in ("hardware", "factory")
    )
    config.hardware = at_site(hardware, factory, kept=typed_keys)


def _describe_model(config: DictConfig) -> None:
    """The shape of the weights that the run begins from, as far as recipe and command line leave it open."""
    found = imported_model(OmegaConf.select(config, "init_from"))
    for key, value in found.items():
        if key == "name" or config.model.get(key) is None:
            config.model[key] = value


def _describe_cpu(hardware: DictConfig, here: bool) -> None:
    node = this_node() if here else None
    found = {
        "usable_cores_per_node": node.cores if node else None,
        "node_memory_gib": node.memory_gib if node else None,
        "bf16": bool(node and node.bf16),
    }
    for key, value in found.items():
        if hardware.get(key) is None and not OmegaConf.is_missing(hardware, key):
            hardware[key] = value


def _resolve(config: DictConfig) -> dict[str, Any]:
    root = OmegaConf.select(config, "data.root", default=None)
    data = config.get("data")
    if root is None and isinstance(data, DictConfig):
        OmegaConf.update(config, "data.root", DATA_ROOT, force_add=True)
    document = OmegaConf.to_container(config, resolve=True)
    assert isinstance(document, dict)
    if root is None and isinstance(data, DictConfig):
        document["data"]["root"] = None
    return {str(key): value for key, value in document.items()}


def _explain(error: Exception) -> Problem:
    """Hydra's or OmegaConf's message as a problem: the key it names, and its own first words."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    if isinstance(cause, InterpolationToMissingValueError):
        missing = lines[0].rpartition(": ")[2]
        return Problem(missing, "has no value", f"{missing}=...")
    key = getattr(cause, "full_key", None) or _quoted(lines[0]) or "configuration"
    return Problem(
        str(key), lines[0], " ".join(line for line in lines[1:] if not line.startswith(("full_key", "object_type")))
    )


def _quoted(line: str) -> str | None:
    found = re.search(r"'([^']+)'", line)
    return found[1] if found else None
