"""The replicas of published European models: counts as published, plans on LUMI, found and named everywhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aiftrain.errors import ConfigError
from aiftrain.plan.groups import Groups
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.model import ModelSpec

GROUPS = Groups()
REPLICAS = [recipe for recipe in GROUPS.choices("recipe") if recipe.startswith("replica/")]

# to the unit: safetensors metadata or model cards of the repositories on the Hugging Face Hub
EXACT = {
    "bloom-560m": 559_214_592,
    "bloom-1.1b": 1_065_314_304,
    "bloom-1.7b": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7.1b": 7_069_016_064,
    "bloom-176b": 176_247_271_424,
    "eurollm-1.7b": 1_656_850_432,
    "eurollm-9b": 9_152_319_488,
    "apertus-8b": 8_053_338_176,
    "salamandra-2b": 2_253_490_176,
    "salamandra-7b": 7_768_117_248,
    "alia-40b": 40_433_885_184,
    "lucie-7b": 6_706_958_336,
    "pharia-1-7b": 7_041_544_704,
    "smollm3-3b": 3_075_098_624,
    "ministral-8b": 8_019_808_256,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "poro-2-8b": 8_030_261_248,
    "poro-2-70b": 70_553_706_496,
}


def shape(name: str) -> ModelSpec:
    return ModelSpec.model_validate(GROUPS.read("model", name))


def test_the_families_that_were_promised_are_there() -> None:
    names = " ".join(REPLICAS)
    promised = "eurollm apertus salamandra alia teuken minerva viking poro lucie croissantllm tildeopen bloom"
    assert all(f"replica/{family}" in names for family in promised.split())


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_the_published_ones_to_the_unit(name: str) -> None:
    assert shape(name).parameters == EXACT[name] == shape(name).published_parameters


@pytest.mark.parametrize("recipe", REPLICAS)
def test_a_replica_states_count_and_source_and_fits(recipe: str) -> None:
    factory = "jupiter" if recipe == "replica/bloom-176b" else "lumi"  # its file says why
    spec = resolve([f"recipe={recipe}", f"factory={factory}"])
    assert recipe == f"replica/{spec.model.name}"
    assert spec.model.published_parameters is not None
    assert spec.model.source
    plan = make_plan(spec)
    assert plan.execution.layout.global_batch == spec.train.global_batch
    assert plan.prediction.fits, "a replica is to run as it is shipped"
    opening = " ".join(GROUPS.opening("recipe", recipe))
    assert "Published and kept" in opening or "not retraced" in opening


def test_a_count_that_is_not_the_published_one_is_refused() -> None:
    wrong = GROUPS.read("model", "eurollm-9b") | {"num_layers": 41}
    with pytest.raises(ValidationError, match=r"has 8,959,373,312 parameters, published are 9152319488"):
        ModelSpec.model_validate(wrong)


def test_a_replica_is_suggested_and_the_list_stays_short() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(["recipe=eurollm-9b"])
    message = str(caught.value)
    assert "did you mean replica/eurollm-9b?" in message
    assert "eu-llm-7b" in message
    assert f"{len(REPLICAS)} in replica/" in message
    assert "replica/bloom-3b" not in message


def test_a_replica_has_a_run_folder_of_its_name() -> None:
    assert resolve(["recipe=replica/viking-7b", "factory=lumi"]).run_folder.startswith("runs/replica/viking-7b/")
