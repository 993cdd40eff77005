"""Every shipped YAML file is a case: it is valid by itself and says where its figures come from."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from aiftrain.plan.archives import services
from aiftrain.plan.groups import Groups
from aiftrain.plan.spec import resolve
from aiftrain.run.access import AccessSpec
from aiftrain.run.base import Provenance
from aiftrain.run.corpus import DataSpec
from aiftrain.run.machine import Factory, Hardware
from aiftrain.run.model import ModelSpec
from aiftrain.run.optimizer import OptimizerSpec
from aiftrain.run.policy import PolicySpec
from aiftrain.run.spec import LauncherSpec, ParallelSpec, StorageSpec, TrackingSpec
from aiftrain.run.storage import ServiceSpec
from aiftrain.shipped import conf_dir, recipes_dir

GROUPS = Groups()
MODELS: dict[str, type[BaseModel]] = {
    "access": AccessSpec,
    "factory": Factory,
    "hardware": Hardware,
    "parallelism": ParallelSpec,
    "model": ModelSpec,
    "data": DataSpec,
    "optimizer": OptimizerSpec,
    "storage": StorageSpec,
    "tracking": TrackingSpec,
    "launcher": LauncherSpec,
    "policy": PolicySpec,
}
CHOICES = [(group, choice) for group in MODELS for choice in GROUPS.choices(group)]
RECIPES = GROUPS.choices("recipe")
FACTORIES = GROUPS.choices("factory")
OPERATIONAL = """
    lumi leonardo marenostrum5 karolina vega jupiter jedi jeti hunter meluxina discoverer discoverer-plus deucalion
    arrhenius jeanzay-v100 jeanzay-a100 jeanzay-h100 helios musica local generic-slurm
"""
ANNOUNCED = """
    lumi-ai lisa it4lia bsc-aif slaif hammerhai meluxina-ai brain-plus-plus daedalus alice-recoque piast gaia levente
    caspir ai-at
"""
HARDWARE = """
    cpu mi250x mi300a mi430x v100-16 v100-32 a100-40 a100-64 a100-80 h100 h100-64 h100-94 h200 gh200 gb200-nvl4
"""
IDENTITY = {"name", "title", "status", "scheduler", "kind", "arch", "modules"}  # names a thing, states no figure


def test_every_group_of_the_design_is_shipped() -> None:
    assert set(GROUPS.names) == {*MODELS, "recipe"}
    assert set(RECIPES) >= {"eu-llm-1b", "eu-llm-7b", "smoke", "smoke-eu"}
    assert set(FACTORIES) == {*OPERATIONAL.split(), *ANNOUNCED.split()}
    assert set(GROUPS.choices("hardware")) >= set(HARDWARE.split())
    assert set(GROUPS.choices("parallelism")) >= {"ddp", "zero1", "zero2", "zero3"}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_choice_is_named_like_its_file_and_fits_its_model(group: str, choice: str) -> None:
    document = GROUPS.read(group, choice)
    assert document["name"] == choice
    if choice == "online":  # must be told its server
        document["base_url"] = "https://wandb.example.eu"
    if choice == "cpu":  # filled in where it stands
        document["bf16"] = False
    if choice == "imported":  # filled in from the weights
        document |= {**GROUPS.read(group, "smoke"), "name": choice}
    MODELS[group].model_validate(document)


@pytest.mark.parametrize("group", [*MODELS, "recipe"])
def test_every_file_says_what_it_is(group: str) -> None:
    for choice in GROUPS.choices(group):
        assert len(GROUPS.summary(group, choice)) > 10, f"{group}/{choice}.yaml opens with no comment"


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] in ("factory", "hardware")])
def test_every_figure_has_a_source_and_no_source_is_without_one(group: str, choice: str) -> None:
    document = GROUPS.read(group, choice)
    sources = document.pop("provenance")
    figures = set(_figures(document))
    unsourced = {key for key in figures if not any(key == s or key.startswith(f"{s}.") for s in sources)}
    assert not unsourced
    idle = {s for s in sources if not any(key == s or key.startswith(f"{s}.") for key in figures)}
    assert not idle, "provenance of what the file does not state"
    for source in sources.values():
        assert Provenance.model_validate(source).date == "2026-11-22"


@pytest.mark.parametrize("service", services(GROUPS))
def test_every_fact_of_a_storage_service_has_a_source(service: str) -> None:
    document = GROUPS.read("storage", service)["service"]
    assert document["name"] == service
    sources = document.pop("provenance")
    figures = {key for key in _figures(document) if not key.startswith("regions.")} | ({"regions"} & document.keys())
    assert not {key for key in figures if key not in sources and key.split(".")[0] not in sources}
    assert not {s for s in sources if not any(key == s or key.startswith(f"{s}.") for key in figures)}
    for source in sources.values():
        Provenance.model_validate(source)


def test_storage_services_of_the_design_are_shipped_and_lie_where_they_say() -> None:
    of_design = "lumi-o allas ovhcloud scaleway ionos hetzner outscale stackit open-telekom-cloud exoscale"
    assert set(services(GROUPS)) == set(of_design.split())
    for name in services(GROUPS):
        service = ServiceSpec.model_validate(GROUPS.read("storage", name)["service"])
        hosts = [service.host, *(service.at(region).host for region in service.regions)]
        assert len(set(hosts)) == 1 + len(service.regions)
        assert all(service.at(region).location for region in service.regions)


@pytest.mark.parametrize("factory", FACTORIES)
def test_announced_is_what_is_listed_so_and_every_site_names_its_country(factory: str) -> None:
    document = GROUPS.read("factory", factory)
    assert document["status"] == ("announced" if factory in ANNOUNCED.split() else "operational")
    if factory not in ("local", "generic-slurm"):
        assert re.fullmatch("[A-Z]{2}", document["country"])
        assert document["operator"]
    assert "pue" not in document, "nobody has published one that could be verified"


def test_no_account_and_no_person_is_in_the_shipped_files() -> None:
    forms = [GROUPS.read("factory", name).get("account_pattern") or "" for name in FACTORIES]
    patterns = [form.strip("^$") for form in forms if r"\d{" in form]
    patterns += [r"\bp\d{6}", r"EUHPC_\w+", r"[\w.-]+@[a-z][\w-]*\.[a-z]{2,}", r"/(?:users|jusers)/[a-z]\w+"]
    assert len(patterns) > 3
    for file in [*conf_dir().rglob("*.yaml"), *recipes_dir().rglob("*.yaml")]:
        text = file.read_text(encoding="utf-8")
        found = [match for pattern in patterns for match in re.findall(rf"{pattern}\b", text)]
        assert not found, f"{file}: {found}"


@pytest.mark.parametrize("hardware", ["v100-16", "v100-32"])
def test_v100_states_what_it_has_in_place_of_bf16(hardware: str) -> None:
    v100 = Hardware.model_validate(GROUPS.read("hardware", hardware))
    assert (v100.bf16, v100.peak_bf16_tflops, v100.peak_fp16_tflops) == (False, None, 125)


def test_a_gcd_of_mi250x_is_a_device() -> None:
    mi250x = GROUPS.read("hardware", "mi250x")
    assert (mi250x["devices_per_node"], mi250x["device_memory_gib"], mi250x["peak_bf16_tflops"]) == (8, 64, 191.5)


def test_lumi_does_what_its_user_guide_says() -> None:
    lumi = Factory.model_validate(GROUPS.read("factory", "lumi"))
    assert lumi.account_required
    assert lumi.partition == "standard-g"
    assert lumi.gpu_request == ("--gpus-per-node=8",)
    assert (lumi.memory, lumi.cpus_per_task) == ("480000M", 7)
    assert lumi.cpu_bind is not None
    masks = [int(mask, 16) for mask in lumi.cpu_bind.removeprefix("mask_cpu:").split(",")]
    assert [mask.bit_count() for mask in masks] == [7] * 8
    assert sum(masks).bit_count() == 56, "no core is given to two ranks"
    assert "NCCL_NET_GDR_LEVEL" not in lumi.env, "it hangs the ROCm 7 images"


def test_eu_recipes_have_all_official_languages() -> None:
    official = set("bg cs da de el en es et fi fr ga hr hu it lt lv mt nl pl pt ro sk sl sv".split(" "))  # noqa: SIM905
    sources = resolve(["recipe=eu-llm-7b", "factory=lumi", "data.root=/corpus"]).data.sources
    assert set(sources) == official | {"code", "math"}
    assert sources["mt"].path == "/corpus/mt"


def _figures(document: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys that state something a source must back."""
    figures: list[str] = []
    for name, value in document.items():
        if not prefix and name in IDENTITY:
            continue
        if isinstance(value, dict):
            figures += _figures(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            figures.append(f"{prefix}{name}")
    return figures
