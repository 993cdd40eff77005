"""What a policy refuses of a run, and that every program that starts one asks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiftrain.checkpoint.sealing.keys import new_identity
from aiftrain.checkpoint.stores.opening import open_store
from aiftrain.cli.main import main
from aiftrain.errors import ConfigError
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder
from aiftrain.run.residency import check, leaves
from tests.conftest import small_spec

ONLINE = ["recipe=smoke", "tracking=online", "tracking.base_url=https://wandb.example.eu"]
NAMED = "policy.wandb_hosts=[wandb.example.eu]"


def refused(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        make_plan(resolve([*ONLINE, *overrides]))
    return [problem.where for problem in error.value.problems]


def test_metrics_go_to_a_named_server_alone() -> None:
    assert refused() == refused("policy=eu") == ["policy.wandb_hosts"]
    assert refused(NAMED, "tracking.base_url=https://api.wandb.ai") == ["policy.wandb_hosts"]
    assert refused(NAMED, "tracking.base_url=https://x.wandb.example.eu") == ["policy.wandb_hosts"]
    assert refused(NAMED, "tracking.base_url=https://wandb.example.eu:8443") == ["policy.wandb_hosts"]
    assert refused("policy.wandb_hosts=[wandb.example.eu:80]", "tracking.base_url=http://wandb.example.eu") == [
        "tracking.base_url"
    ]
    spec = resolve([*ONLINE, NAMED])
    make_plan(spec)
    assert leaves(spec) == ["metrics to https://wandb.example.eu"]
    assert leaves(resolve(["recipe=smoke", "tracking=offline"])) == []


def test_checkpoints_go_where_the_policy_lets_them() -> None:
    bucket = "storage.archives=[s3://ionos/bucket]"
    at_ionos = ["recipe=smoke", "tracking=none", bucket]
    with pytest.raises(ConfigError) as error:
        make_plan(resolve(at_ionos))
    assert {p.where for p in error.value.problems} == {
        f"policy.checkpoints.{key}" for key in ("locations", "operator_seats", "owner_seats", "seal")
    }
    with pytest.raises(ConfigError, match=r"policy\.checkpoints\.seal: ionos would hold checkpoints in the clear"):
        make_plan(resolve([*at_ionos, "policy=eu"]))
    spec = resolve([*at_ionos, "policy=eu", "policy.checkpoints.seal=none"])
    make_plan(spec)
    [told] = leaves(spec)
    assert told.startswith("checkpoints to s3://ionos/bucket (IONOS")


def test_what_is_not_sealed_is_refused_by_plan_before_the_queue_at_the_start_and_where_a_store_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """policy=eu-sealed; the last two ask again, for somebody may have changed run.json."""
    words = ["recipe=smoke", "factory=local", "tracking=none", "policy=eu-sealed", f"run_dir={tmp_path}/run"]
    archives = "storage.archives=[s3://ionos/bucket]"
    for verb in ([], ["plan"], ["script"]):
        assert main([*verb, *words, archives]) == 2
        assert "policy.checkpoints.seal: ionos would hold checkpoints in the clear" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    spec = resolve([*words, archives])
    with pytest.raises(ConfigError, match=r"policy\.checkpoints\.seal"):
        check(spec, tmp_path)
    with pytest.raises(ConfigError, match=r"policy\.checkpoints\.seal"):
        open_store(spec.storage.archives[0], spec)
    recipient = new_identity(tmp_path / "identity")
    sealed = resolve([*words, archives, "storage.seal.where=archives", f"storage.seal.recipients={recipient}"])
    make_plan(sealed)
    check(sealed, tmp_path)


def test_two_copies_need_a_second_place() -> None:
    alone = ["recipe=smoke", "tracking=none", "policy.copies=2"]
    with pytest.raises(ConfigError, match=r"policy\.copies: every checkpoint is to lie at 2 places"):
        make_plan(resolve(alone))
    make_plan(resolve([*alone, "storage.archives=[/second/copy]"]))


def test_all_is_refused_together_with_what_else_is_wrong() -> None:
    assert set(refused("train.global_batch=7")) == {"train.global_batch", "policy.wandb_hosts"}


def test_a_factory_cannot_have_a_library_phone_home() -> None:
    assert refused(NAMED, "+factory.env.HF_HUB_OFFLINE='0'") == ["factory.env.HF_HUB_OFFLINE"]
    make_plan(resolve([*ONLINE, NAMED, "+factory.env.HF_HUB_OFFLINE='1'"]))


def test_the_policy_is_no_part_of_which_run_it_is() -> None:
    site, eu = resolve(["recipe=smoke"]), resolve(["recipe=smoke", "policy=eu"])
    assert (site.digest, site.lineage) == (eu.digest, eu.lineage)
    assert site.policy != eu.policy


def test_a_run_from_before_there_were_policies_stays_at_the_site(run_folder: RunFolder) -> None:
    document = json.loads(run_folder.run_json.read_text(encoding="utf-8"))
    del document["policy"]
    run_folder.write_json(run_folder.run_json, document)
    assert run_folder.read_spec().policy.name == "site"


def test_a_rank_asks_again(tmp_path: Path) -> None:
    """Somebody may have changed run.json since it was planned."""
    with pytest.raises(ConfigError, match=r"policy\.wandb_hosts"):
        check(
            small_spec(tracking={"name": "online", "wandb": "online", "base_url": "https://wandb.example.eu"}), tmp_path
        )
