"""What people get wrong: each mistake is named by its key, with what was found and what would fit, all at once."""

from __future__ import annotations

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve

LUMI = ["recipe=eu-llm-1b", "factory=lumi"]
SMOKE = ["recipe=smoke"]

CASES: dict[str, tuple[list[str], str, list[str]]] = {
    "unknown key": ([*SMOKE, "modle=x"], "modle", ["unknown key", "did you mean model?"]),
    "misspelt key": ([*SMOKE, "train.step=3"], "train.step", ["unknown key", "did you mean train.steps?"]),
    "misspelt key with plus": ([*SMOKE, "+train.stepz=3"], "train.stepz", ["did you mean train.steps?"]),
    "key of another section": ([*SMOKE, "sequence_length=8"], "sequence_length", ["train.sequence_length"]),
    "key of a source": (
        [*SMOKE, "data.sources.python-docs.wieght=1"],
        "data.sources.python-docs.wieght",
        ["did you mean data.sources.python-docs.weight?"],
    ),
    "unlike any key": ([*SMOKE, "storage.zzz=1"], "storage.zzz", ["there are: ", "storage.save_every"]),
    "misspelt choice": (["recipe=smokey"], "recipe", ["no recipe 'smokey'", "did you mean smoke?", "eu-llm-7b"]),
    "misspelt factory": ([*SMOKE, "factory=lumy"], "factory", ["no factory 'lumy'", "did you mean lumi?"]),
    "no recipe": ([], "recipe", ["no recipe is chosen", "smoke-eu"]),
    "null choice": ([*SMOKE, "model=null"], "model", ["no model 'None'"]),
    "group left out": ([*SMOKE, "~tracking"], "tracking", ["has no value", "none, offline, online"]),
    "wrong type": ([*SMOKE, "train.steps=many"], "train.steps", ["'many' does not fit", "a whole number"]),
    "broken number": ([*SMOKE, "nodes=1.5"], "nodes", ["1.5 does not fit", "a whole number"]),
    "truth value": ([*SMOKE, "train.compile=perhaps"], "train.compile", ["true or false"]),
    "out of bounds": ([*SMOKE, "nodes=0"], "nodes", ["0 does not fit", "greater than or equal to 1"]),
    "endless number": ([*SMOKE, "optimizer.lr=inf"], "optimizer.lr", ["inf does not fit", "a finite number"]),
    "no number": ([*SMOKE, "optimizer.weight_decay=nan"], "optimizer.weight_decay", ["nan does not fit"]),
    "unknown word": ([*SMOKE, "train.precision=fp8"], "train.precision", ["'fp8' does not fit", "'bf16'"]),
    "section made a value": ([*SMOKE, "seed.x=1"], "seed", ["a whole number"]),
    "impossible batch": (
        [*SMOKE, "train.micro_batch=3"],
        "train.global_batch",
        ["8 sequences cannot be shared by 1 ranks of 3", "6 or 9", "train.micro_batch=2"],
    ),
    "steps and tokens": ([*SMOKE, "train.tokens=9"], "train", ["either train.steps or train.tokens"]),
    "neither of them": ([*SMOKE, "train.steps=null"], "train", ["either train.steps or train.tokens"]),
    "heads": ([*SMOKE, "model.num_kv_heads=3"], "model", ["num_kv_heads 3", "may be 1, 2, 4"]),
    "online without a server": ([*SMOKE, "tracking=online"], "tracking", ["tracking.base_url"]),
    "several values": ([*SMOKE, "nodes=1,2"], "nodes", ["several values", "-m"]),
    "no override": ([*SMOKE, "nodes"], "nodes", ["neither a verb nor an override", "key=value"]),
    "no key": ([*SMOKE, "=3"], "=3", ["cannot be read as key=value"]),
    "value that a source needs": ([*SMOKE, "data=folder"], "data.root", ["has no value", "data.root=..."]),
    "unreadable override": ([*SMOKE, "seed=]["], "seed=][", ["cannot be read as key=value"]),
    "missing variable": ([*SMOKE, "seed=${oc.env:NOT_SET}"], "seed", ["NOT_SET"]),
    "missing interpolation": ([*SMOKE, "seed=${nope}"], "seed", ["nope"]),
    "no such folder": ([*SMOKE, "hydra.searchpath=[/no/where]"], "hydra.searchpath", ["/no/where"]),
    "too many nodes": ([*LUMI, "nodes=2048"], "nodes", ["2048", "standard-g", "at most 1024", "nodes=1024"]),
    "too many for a partition": (
        [*LUMI, "nodes=8", "launcher.partition=small-g"],
        "nodes",
        ["at most 4", "nodes=4", "launcher.partition=standard-g", "launcher.partition=dev-g"],
    ),
    "bad time": ([*LUMI, "time=soon"], "time", ["'soon' is no time", "2-00:00:00"]),
    "too long": ([*LUMI, "time=3-00:00:00"], "time", ["longer than standard-g", "2-00:00:00 or less"]),
    "unknown partition": ([*LUMI, "launcher.partition=small"], "launcher.partition", ["did you mean small-g?"]),
    "slurm without slurm": ([*SMOKE, "launcher=slurm"], "launcher", ["no scheduler", "launcher=local"]),
    "nodes here": ([*SMOKE, "nodes=2", "train.micro_batch=4"], "recipe", ["cannot run here", "nodes=1"]),
    "two optimizers": ([*SMOKE, "optimizer=muon", "+optimizer.ademamix={}"], "optimizer", ["two optimizers", "null"]),
    "average of nothing": ([*SMOKE, "train.evaluate_average=true"], "configuration", ["optimizer.ema_decay"]),
    "muon on parts of matrices": (
        [*SMOKE, "optimizer=muon", "parallelism=tp", "launcher.ranks_per_node=2"],
        "optimizer.muon",
        ["parallelism.tensor=2", "parallelism=zero1", "optimizer=adamw"],
    ),
    "muon on the CPUs": (
        [*SMOKE, "optimizer=muon", "parallelism=offload"],
        "optimizer.muon",
        ["parallelism.offload_optimizer=cpu"],
    ),
    "more offloaded than a node holds": (
        ["recipe=eu-llm-70b", "factory=lumi", "nodes=1", "parallelism=offload3"],
        "parallelism=offload3",
        ["offloaded states of 8 ranks", "and a node has", "offload_optimizer=none"],
    ),
    "too large": (
        ["recipe=eu-llm-7b", "factory=lumi", "parallelism=ddp"],
        "parallelism=ddp",
        ["100.1 GiB", "64.0 GiB", "parallelism=zero1 (37.6 GiB)"],
    ),
}

LAUNCH_CASES: dict[str, tuple[list[str], str, list[str]]] = {
    "no account": ([*LUMI, "data.root=/x"], "account", ["lumi takes no job without one", "account="]),
    "no data.root": ([*LUMI, "account=p"], "data.root", ["26 sources", "bg, cs, da"]),
    "announced": (
        [*LUMI, "account=p", "data.root=/x", "factory.status=announced"],
        "factory",
        ["announced and takes no jobs yet", "python -m aiftrain factories"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_named(case: str) -> None:
    overrides, where, phrases = CASES[case]
    with pytest.raises(ConfigError) as error:
        make_plan(resolve(overrides))
    _check(error.value, where, phrases)


@pytest.mark.parametrize("case", LAUNCH_CASES)
def test_what_only_a_launch_needs_is_named_then(case: str) -> None:
    overrides, where, phrases = LAUNCH_CASES[case]
    spec = resolve(overrides)
    make_plan(spec)
    with pytest.raises(ConfigError) as error:
        make_plan(spec, to_launch=True)
    _check(error.value, where, phrases)


def test_all_mistakes_of_one_kind_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as choices:
        resolve(["recipe=smokey", "factory=lumy", "model=big"])
    assert [problem.where for problem in choices.value.problems] == ["recipe", "factory", "model"]
    with pytest.raises(ConfigError) as keys:
        resolve([*SMOKE, "seed=a", "nodes=0", "train.step=1", "modle=x"])
    assert {problem.where for problem in keys.value.problems} == {"seed", "nodes", "train.step", "modle"}
    with pytest.raises(ConfigError) as plans:
        make_plan(resolve([*LUMI, "parallelism=ddp", "model=eu-7b", "nodes=2048", "time=9-0", "train.micro_batch=3"]))
    wheres = {problem.where for problem in plans.value.problems}
    assert wheres == {"time", "nodes", "train.global_batch", "parallelism=ddp"}


def _check(error: ConfigError, where: str, phrases: list[str]) -> None:
    problem = next((problem for problem in error.problems if problem.where == where), None)
    assert problem is not None, f"no problem at {where}: {error}"
    assert [phrase for phrase in phrases if phrase not in str(problem)] == [], str(problem)
    assert error.exit_code == 2
