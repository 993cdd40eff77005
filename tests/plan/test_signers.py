"""Keys in policy.signed_by: a file is named, its text is what run.json has, and the plan shows whose it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.checkpoint.signing.checkpoint import sign_model
from aiftrain.checkpoint.signing.keys import SigningKey, new_signing_key
from aiftrain.cli.main import main
from aiftrain.errors import ConfigError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.spec import RunSpec
from tests.checkpoint.published import publish
from tests.checkpoint.signing.conftest import no_passphrase

SMOKE = ("recipe=smoke", "factory=local")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_signing_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        make_plan(resolve([*SMOKE, *overrides]))
    return str(error.value)


@pytest.mark.parametrize("word", ["policy.signed_by=[{}.pub]", "policy.signed_by={}.pub"])
def test_the_resolved_spec_needs_no_file(key: Path, word: str) -> None:
    spec = resolve([*SMOKE, word.format(key)])
    assert spec.policy.signed_by == (Path(f"{key}.pub").read_text(),)
    assert spec.policy.signers == (SigningKey.read(key, no_passphrase).public.fingerprint,)
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.lineage == resolve(list(SMOKE)).lineage


def test_a_policys_file_may_hold_the_text(key: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "policy").mkdir(parents=True)
    text = Path(f"{key}.pub").read_text()
    document = {"defaults": ["eu", "_self_"], "name": "team", "signed_by": [text]}
    (tmp_path / "mine" / "policy" / "team.yaml").write_text(json.dumps(document))
    assert resolve([*SMOKE, f"hydra.searchpath=[{tmp_path}/mine]", "policy=team"]).policy.signed_by == (text,)


def test_the_plan_shows_whose_signature_counts(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, fingerprint = ["plan", *SMOKE, f"policy.signed_by=[{key}.pub]"], SigningKey.read(key, no_passphrase).public
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"] == [fingerprint.fingerprint]
    assert main(words) == 0
    assert f"only what is signed with {fingerprint.fingerprint[:16]}" in capsys.readouterr().out


def test_what_is_no_public_key_is_told_and_a_private_one_not_repeated(key: Path, tmp_path: Path) -> None:
    assert f"policy.signed_by: cannot read {tmp_path}/none" in problem(f"policy.signed_by=[{tmp_path}/none]")
    secret = key.read_text()
    (tmp_path / "words.json").write_text(json.dumps(secret))
    for word in (str(key), (tmp_path / "words.json").read_text()):
        told = problem(f"policy.signed_by=[{word}]")
        assert "holds no public key" in told and secret.splitlines()[1] not in told
    assert "policy.signed_by" in problem("policy.signed_by=[1]")


def test_a_run_begins_with_signed_weights_alone(key: Path, tmp_path: Path) -> None:
    folder = publish(tmp_path / "model", shard="20KB")
    tokenizer = ["data.tokenizer.kind=file", f"data.tokenizer.path={folder}/tokenizer.json"]
    words = ["model=imported", f"init_from={folder}", f"data.cache_dir={tmp_path}/cache", *tokenizer]
    words.append(f"policy.signed_by=[{key}.pub]")
    assert f"init_from: policy.signed_by: {folder} does not count: it is not signed" in problem(*words)
    sign_model(folder, SigningKey.read(key, no_passphrase))
    make_plan(resolve([*SMOKE, *words]))
    changed = next(folder.glob("*.safetensors"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    assert f"{changed.name}: not what was signed" in problem(*words)
