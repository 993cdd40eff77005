"""Composition: who wins over whom, a user's own folder, `auto`, sweeps, and that Hydra leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from pydantic import BaseModel

from aiftrain.errors import ConfigError
from aiftrain.plan.compose import compose, compose_config, expand_sweep, to_yaml
from aiftrain.plan.groups import read_yaml
from aiftrain.plan.here import this_node
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import TrainSpec
from aiftrain.shipped import conf_dir


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)


def test_a_factory_brings_its_hardware_and_launcher() -> None:
    spec = resolve(["recipe=smoke", "factory=lumi"])
    assert (spec.hardware.name, spec.launcher.name) == ("mi250x", "slurm")


def test_a_recipe_wins_over_the_defaults_and_the_command_line_over_both() -> None:
    assert resolve(["recipe=eu-llm-7b", "factory=lumi"]).model.name == "eu-7b"
    spec = resolve(["recipe=eu-llm-7b", "factory=lumi", "model=eu-1b", "hardware=h100", "train.tokens=1000", "nodes=3"])
    assert (spec.model.name, spec.hardware.name, spec.train.tokens, spec.nodes) == ("eu-1b", "h100", 1000, 3)


def test_the_order_of_overrides_does_not_matter() -> None:
    assert resolve(["hardware=h100", "recipe=smoke", "factory=lumi"]).hardware.name == "h100"


def test_a_key_that_the_files_leave_at_its_default_needs_no_plus() -> None:
    assert "z_loss" not in compose(["recipe=smoke", "~model.z_loss"])["model"]
    assert resolve(["recipe=smoke", "data.sources.python-docs.weight=2", "~data.sources.python-source"])
    assert resolve(["recipe=smoke", "+data.sources.mine={path: /texts}"]).data.sources["mine"].path == "/texts"


def test_auto_and_no_factory_mean_where_this_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(["recipe=smoke"]).factory.name == "local"
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "lumi")
    assert resolve(["recipe=smoke"]).factory.name == "lumi"
    assert resolve(["recipe=smoke", "factory=auto"]).factory.name == "lumi"
    assert resolve(["recipe=smoke", "factory=local"]).factory.name == "local"


def test_a_cpu_is_described_from_the_machine_unless_it_is_elsewhere_or_given() -> None:
    node, here = this_node(), resolve(["recipe=smoke"]).hardware
    assert (here.usable_cores_per_node, here.node_memory_gib, here.bf16) == (node.cores, node.memory_gib, node.bf16)
    assert resolve(["recipe=smoke", "hardware.node_memory_gib=7"]).hardware.node_memory_gib == 7
    elsewhere = resolve(["recipe=smoke", "factory=lumi", "hardware=cpu"]).hardware
    assert (elsewhere.usable_cores_per_node, elsewhere.node_memory_gib, elsewhere.bf16) == (None, None, False)


def test_missing_values_are_reported_by_key_all_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=smoke", "model.hidden_size=???", "optimizer.lr=???"])
    assert [problem.where for problem in error.value.problems] == ["model.hidden_size", "optimizer.lr"]


def test_a_folder_of_ones_own_adds_and_replaces(tmp_path: Path) -> None:
    own = tmp_path / "our site"
    (own / "recipe").mkdir(parents=True)
    (own / "factory").mkdir()
    (own / "recipe" / "mine.yaml").write_text("# @package _global_\ndefaults: [smoke]\nseed: 7\n", encoding="utf-8")
    (own / "recipe" / "smoke-eu.yaml").write_text(
        "# @package _global_\ndefaults: [{override /model: eu-1b}]\ntrain: {steps: 1}\n", encoding="utf-8"
    )
    (own / "factory" / "lumi.yaml").write_text("name: lumi\ntitle: ours\n", encoding="utf-8")
    search = f"hydra.searchpath=['{own}']"
    mine = resolve(["recipe=mine", search])
    assert (mine.recipe, mine.seed, mine.train.steps) == ("mine", 7, resolve(["recipe=smoke"]).train.steps)
    assert resolve(["recipe=smoke-eu", search]).model.name == "eu-1b"
    assert resolve(["recipe=smoke", "factory=lumi", search]).factory.title == "ours"
    assert resolve(["recipe=smoke", "factory=lumi"]).factory.title != "ours"


def test_a_recipe_of_ones_own_without_its_first_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("seed: 7\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="# @package _global_"):
        compose(["recipe=mine", f"hydra.searchpath=[{tmp_path}]"])


def test_a_broken_file_of_ones_own_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "broken.yaml").write_text("name: [broken\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        compose(["recipe=smoke", "model=broken", f"hydra.searchpath=[{tmp_path}]"])


def test_config_yaml_shows_every_key_of_train_at_its_default(tmp_path: Path) -> None:
    shown = read_yaml(conf_dir() / "config.yaml")["train"]
    fields = TrainSpec.model_fields
    assert set(shown) == set(fields)
    defaults = {key: field.get_default() for key, field in fields.items() if not field.is_required()}
    plain = {key: value.model_dump() if isinstance(value, BaseModel) else value for key, value in defaults.items()}
    assert {key: shown[key] for key in plain} == plain


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    repo, base = ConfigStore.instance().repo, VersionBase.instance().version_base
    names = set(repo)
    resolve(["recipe=smoke"])
    with pytest.raises(ConfigError):
        resolve(["recipe=smoke", "optimizer@nowhere=adamw"])
    assert not GlobalHydra.instance().is_initialized()
    assert ConfigStore.instance().repo is repo
    assert set(repo) == names
    assert VersionBase.instance().version_base is base
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_cfg_job_prints_what_is_composed() -> None:
    config = compose_config(["recipe=eu-llm-1b", "factory=lumi", "data.root=/corpus"])
    assert "path: ${data.root}/bg" in to_yaml(config, resolve=False)
    assert "path: /corpus/bg" in to_yaml(config, resolve=True)
    assert "hydra:" not in to_yaml(config, resolve=False)


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("seed=1,2,3", ["seed=1", "seed=2", "seed=3"]),
        ("seed=range(0,6,2)", ["seed=0", "seed=2", "seed=4"]),
        ("optimizer.lr=choice(1e-3,2e-3)", ["optimizer.lr=0.001", "optimizer.lr=0.002"]),
        ("parallelism=glob(zero*)", ["parallelism=zero1", "parallelism=zero2", "parallelism=zero3"]),
        ("optimizer.betas=[0.9,0.95],[0.9,0.99]", ["optimizer.betas=[0.9,0.95]", "optimizer.betas=[0.9,0.99]"]),
        ("run_dir='a,b',c", ["run_dir='a,b'", "run_dir=c"]),
    ],
)
def test_a_sweep_becomes_its_values(sweep: str, values: list[str]) -> None:
    assert expand_sweep(["recipe=smoke", sweep]) == [["recipe=smoke", value] for value in values]


def test_sweeps_combine_with_the_last_one_fastest() -> None:
    runs = expand_sweep(["recipe=smoke", "seed=1,2", "nodes=3,4"])
    assert [run[1:] for run in runs] == [
        ["seed=1", "nodes=3"],
        ["seed=1", "nodes=4"],
        ["seed=2", "nodes=3"],
        ["seed=2", "nodes=4"],
    ]


def test_a_sweep_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="no end"):
        expand_sweep(["recipe=smoke", "optimizer.lr=interval(0,1)"])


def test_a_site_says_how_its_nodes_differ_from_the_profile_of_its_hardware() -> None:
    karolina, meluxina = (resolve(["recipe=smoke", f"factory={name}"]).hardware for name in ("karolina", "meluxina"))
    assert (karolina.name, karolina.devices_per_node) == ("a100-40", 8)
    assert (meluxina.name, meluxina.devices_per_node) == ("a100-40", 4)
    assert karolina.provenance["devices_per_node"] != meluxina.provenance["devices_per_node"]
    assert karolina.peak_bf16_tflops == meluxina.peak_bf16_tflops, "what the block does not say stays"


def test_the_nodes_of_a_site_leave_other_hardware_and_what_was_typed_alone() -> None:
    karolina = ["recipe=smoke", "factory=karolina"]
    assert resolve([*karolina, "hardware=a100-40"]).hardware.node_memory_gib == 931
    assert resolve([*karolina, "hardware=a100-80"]).hardware.node_memory_gib is None
    typed = resolve([*karolina, "hardware.devices_per_node=2"]).hardware
    assert (typed.devices_per_node, typed.node_memory_gib) == (2, 931)
    assert resolve([*karolina, "factory.node.devices_per_node=1"]).hardware.devices_per_node == 1


def test_a_site_of_ones_own_says_how_its_nodes_differ_too(tmp_path: Path) -> None:
    """The file that CONTRIBUTING shows, as it stands there."""
    text = (conf_dir().parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "factory").mkdir()
    (tmp_path / "factory" / "ourcluster.yaml").write_text(example, encoding="utf-8")
    run = ["recipe=eu-llm-1b", "factory=ourcluster", "nodes=4", f"hydra.searchpath=['{tmp_path}']"]
    spec = resolve(run)
    assert (spec.factory.name, spec.hardware.name, spec.hardware.devices_per_node) == ("ourcluster", "a100-80", 4)
    assert spec.hardware.provenance["devices_per_node"] == spec.factory.provenance["node.devices_per_node"]
    assert make_plan(spec).estimate.partition == "gpu"
    with pytest.raises(ConfigError, match="gpu on ourcluster gives a job at most 8"):
        make_plan(resolve([*run, "nodes=16"]))
