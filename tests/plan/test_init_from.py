"""`init_from` before the queue: the shape, the tokenizer and the digests of published weights."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from aiftrain.errors import ConfigError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.identity import changed_past, recorded
from aiftrain.run.spec import RunSpec
from tests.checkpoint.published import publish, save_tokenizer


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run that begins from a random model in `model`, with its tokenizer."""
    folder = publish(tmp_path / "model", shard="20KB")
    tokenizer = ["data.tokenizer.kind=file", f"data.tokenizer.path={folder}/tokenizer.json"]
    cache = f"data.cache_dir={tmp_path}/cache"
    return ["recipe=smoke", "factory=local", "model=imported", f"init_from={folder}", cache, *tokenizer]


def refused(overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as error:
        make_plan(resolve(overrides))
    return str(error.value)


def test_the_shape_comes_from_the_folder_but_for_what_is_typed(words: list[str]) -> None:
    spec = resolve([*words, "model.vocab_size=128", "+model.z_loss=1e-4"])
    model = spec.model
    assert (model.name, model.hidden_size, model.num_layers, model.rope_theta) == ("model", 32, 3, 5e5)
    assert (model.vocab_size, model.z_loss, model.norm_eps) == (128, 1e-4, 1e-5)
    make_plan(spec)


def test_digests_decide_which_run_it_is(words: list[str], tmp_path: Path) -> None:
    spec = resolve(words)
    assert spec.init_from is not None
    folder = Path(spec.init_from.path)
    assert spec.init_from.files.keys() == {path.name for path in folder.iterdir()} - {"generation_config.json"}
    for name, file in spec.init_from.files.items():
        content = (folder / name).read_bytes()
        assert (file.size, file.sha256) == (len(content), sha256(content).hexdigest())
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert str(tmp_path) not in str(spec.identity()["init_from"])
    changed = next(folder.glob("*.safetensors"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    other = resolve(words)
    assert other.lineage != spec.lineage
    differing = [key for key, _, _ in changed_past(recorded(spec), recorded(other), 1, 1)]
    assert differing == [f"init_from.files.{changed.name}"]


def test_another_place_is_the_same_run(words: list[str], tmp_path: Path) -> None:
    spec = resolve(words)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").rename(tmp_path / "elsewhere" / "model")
    moved = resolve([word.replace("init_from=" + str(tmp_path), f"init_from={tmp_path}/elsewhere") for word in words])
    assert moved.init_from != spec.init_from
    assert moved.lineage == spec.lineage


def test_a_run_that_begins_at_random_is_what_it_was(words: list[str]) -> None:
    spec = resolve(["recipe=smoke", "factory=local"])
    assert spec.init_from is None
    assert "init_from" not in spec.identity()


def test_every_key_that_differs_is_named(words: list[str]) -> None:
    said = refused([*words, "model.num_layers=2", "+model.norm_eps=1e-3", "model.vocab_size=100"])
    assert "model.num_layers: 2, but the weights in model have 3\n      model.num_layers=3, or" in said
    assert "model.norm_eps: 0.001, but the weights in model have 1e-05" in said
    assert "model.vocab_size: 100, but the weights in model have 101" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("init_from=nowhere", "init_from: cannot read nowhere/config.json: No such file"),
        ("init_from=null", "init_from: model=imported takes the shape of the weights in a folder"),
        ("data.tokenizer.kind=train", "data.tokenizer.kind: a new tokenizer would be trained"),
        ("data.tokenizer.path=moved.json", "tokens are not in their place"),
    ],
)
def test_what_does_not_fit_is_refused(
    words: list[str], change: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tokenizer(Path("moved.json"), moved=True)
    assert message in refused([*words, change])


def test_damage_is_found_before_the_queue(words: list[str], tmp_path: Path) -> None:
    file = sorted((tmp_path / "model").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is damaged" in refused(words)
    file.unlink()
    assert f"{file} is missing" in refused(words)


def test_what_may_not_be_meant_is_said(words: list[str]) -> None:
    warnings = make_plan(resolve([*words, "model.vocab_size=128", "optimizer.warmup_steps=0"])).warnings
    assert any("27 of 128 rows of the vocabulary are new" in warning for warning in warnings)
    assert any("optimizer.warmup_steps should not be 0" in warning for warning in warnings)
    assert not any("vocabulary" in warning or "warmup" in warning for warning in make_plan(resolve(words)).warnings)
    config = Path(resolve(words).init_from.path, "config.json")  # type: ignore[union-attr]
    config.write_text(config.read_text().replace('"max_position_embeddings": 2048', '"max_position_embeddings": 64'))
    assert any("know 64 positions, and train.sequence_length is 128" in w for w in make_plan(resolve(words)).warnings)
