"""A run goes on from an archive where home is empty, damaged or old, and never begins again because of a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from aiftrain.checkpoint.archive import Archive, open_contents
from aiftrain.checkpoint.archived_custody import bring_custody
from aiftrain.checkpoint.catalog import Catalog
from aiftrain.checkpoint.copying import copy
from aiftrain.checkpoint.described import model_at
from aiftrain.checkpoint.export import export
from aiftrain.checkpoint.fetch import fetch
from aiftrain.checkpoint.history import Rollback
from aiftrain.checkpoint.places import Away, Home
from aiftrain.checkpoint.rollbacks import write_rollbacks
from aiftrain.checkpoint.saved import saved_at_home
from aiftrain.checkpoint.shards import shard_name
from aiftrain.checkpoint.signing.checkpoint import sign
from aiftrain.checkpoint.signing.keys import SigningKey, new_signing_key
from aiftrain.checkpoint.stores.folder import FolderStore
from aiftrain.checkpoint.weights_only import weights_only
from aiftrain.errors import UserError
from aiftrain.run.folder import RunFolder
from tests.checkpoint.conftest import flip
from tests.checkpoint.shipping import carry
from tests.ranks.comparing import states
from tests.ranks.conftest import Nursery, Ranks, events, losses

pytestmark = pytest.mark.ranks
NewRun = Callable[..., RunFolder]
SAVING = ("storage.save_every=5", "storage.keep_last=4", "train.evaluate_batches=0")


@pytest.fixture(scope="module")
def straight(nursery: Nursery, new_run: NewRun) -> RunFolder:
    """A run of 20 steps with checkpoints of 5, 10, 15 and 20."""
    run = new_run(*SAVING)
    assert nursery.start(run, 2).wait() == [0, 0]
    return run


class Scene:
    """A run that is to go on with some of the checkpoints of `straight` at home, and some in an archive."""

    def __init__(self, straight: RunFolder, run: RunFolder, place: Path) -> None:
        self._source = Catalog(straight.checkpoints)
        self.run = run
        self.home = Catalog(run.checkpoints)
        self.archive = Archive(FolderStore(place), run.read_spec().lineage)

    def put(self, home: Iterable[int], archive: Iterable[int]) -> None:
        for step in home:
            shutil.copytree(self._source.step_folder(step), self.home.step_folder(step))
        for step in archive:
            carry(self._source.find(step), self.archive)

    def object(self, step: int, number: int) -> Path:
        """The file in the archive of a rank's shard."""
        found = sorted((Path(self.archive.store.address) / self.archive.place(step)).glob("rank-*"))
        return found[number]

    def happened(self) -> list[tuple[str, int | None]]:
        """What was fetched and what was not, and where the run began."""
        told = {"fetched", "fetch failed", "damaged", "archive damaged", "archive out of reach", "resume"}
        names = [(event["event"], event.get("step")) for name in told for event in events(self.run, name)]
        return sorted(names, key=lambda each: each[0])


@pytest.fixture
def scene(straight: RunFolder, new_run: NewRun, tmp_path: Path) -> Scene:
    (tmp_path / "archive").mkdir()
    run = new_run(*SAVING, f"storage.archives=[{tmp_path}/archive]", "storage.ship_minutes=0")
    return Scene(straight, run, tmp_path / "archive")


def goes_on(nursery: Nursery, scene: Scene) -> None:
    ranks = nursery.start(scene.run, 2)
    assert ranks.wait() == [0, 0], ranks.log()
    assert scene.home.latest() == scene.home.find(20)


def fails(nursery: Nursery, scene: Scene) -> Ranks:
    ranks = nursery.start(scene.run, 2)
    assert ranks.wait() == [1, 1], ranks.log()
    assert losses(scene.run) == {}, "it trained"
    return ranks


def test_from_an_empty_home_to_the_last_bit(nursery: Nursery, scene: Scene, straight: RunFolder) -> None:
    scene.put(home=[], archive=[5, 10])
    bring_custody(Catalog(straight.checkpoints).custody.text(), scene.archive)
    goes_on(nursery, scene)
    assert scene.happened() == [("fetched", 10), ("resume", 10)]
    assert losses(scene.run) == {step: loss for step, loss in losses(straight).items() if step > 10}
    assert scene.home.custody.text().startswith(Catalog(straight.checkpoints).custody.text())
    assert scene.home.find(15).manifest.parent == scene.home.find(10).manifest.digest
    ours, theirs = states(scene.run), states(straight)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_damaged_shard_comes_from_the_archive(nursery: Nursery, scene: Scene) -> None:
    scene.put(home=[5, 10], archive=[5, 10])
    flip(scene.home.step_folder(10) / shard_name(1))
    good, inode = scene.object(10, 0), (scene.home.step_folder(10) / shard_name(0)).stat().st_ino
    good.unlink()  # nobody needs it
    goes_on(nursery, scene)
    assert scene.happened() == [("damaged", 10), ("fetched", 10), ("resume", 10)]
    aside = scene.home.folder / "damaged-step-00000010"
    assert (aside / shard_name(0)).stat().st_ino == inode
    assert scene.home.verify(10) == []


def test_the_newest_counts_wherever_it_is_if_it_is_whole(nursery: Nursery, scene: Scene) -> None:
    scene.put(home=[5], archive=[10, 15])
    flip(scene.object(15, 1))
    goes_on(nursery, scene)
    assert scene.happened() == [("fetch failed", 15), ("fetched", 10), ("resume", 10)]
    assert not list(scene.home.folder.glob("fetching-*"))


def test_what_the_run_went_back_from_is_not_fetched(nursery: Nursery, scene: Scene) -> None:
    scene.put(home=[5], archive=[10])
    back = Rollback(at_step=12, to_step=5, start=40, stop=96, trouble="loss", attempt=1, time=0.0)
    write_rollbacks(scene.home, (back,))
    goes_on(nursery, scene)
    assert scene.happened() == [("resume", 5)]


def test_it_hears_of_rollbacks_on_another_machine(nursery: Nursery, scene: Scene) -> None:
    scene.put(home=[5, 10], archive=[5])
    back = Rollback(at_step=12, to_step=5, start=40, stop=96, trouble="loss", attempt=1, time=0.0)
    scene.archive.write_rollbacks((back,))
    goes_on(nursery, scene)
    assert scene.happened() == [("resume", 5)]
    assert [event["step"] for event in events(scene.run, "void")] == [10]


def test_what_the_policy_wants_signed_is_neither_fetched_nor_gone_on_from_otherwise(
    nursery: Nursery, straight: RunFolder, new_run: NewRun, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    new_signing_key(tmp_path / "key.pem")
    archives = f"storage.archives=[{tmp_path}/archive]"
    run = new_run(*SAVING, archives, "storage.ship_minutes=0", f"policy.signed_by=[{tmp_path}/key.pem.pub]")
    scene = Scene(straight, run, tmp_path / "archive")
    for home, archive in (([], [10]), ([15], [])):  # fetched, and at home
        scene.put(home, archive)
        ranks = nursery.start(run, 2)
        assert ranks.wait() == [2, 2], ranks.log()
        assert "policy.signed_by: " in ranks.message() and "it is not signed" in ranks.message()
        assert scene.happened() == [] and losses(run) == {}
    sign(scene.home.find(15), SigningKey.read(tmp_path / "key.pem", lambda: b""))
    goes_on(nursery, scene)
    assert scene.happened() == [("resume", 15)]


def test_what_cannot_be_fetched_now_is_not_trained_again(nursery: Nursery, scene: Scene) -> None:
    scene.put(home=[5], archive=[15])
    unreadable = scene.object(15, 1)
    unreadable.unlink()
    unreadable.mkdir()  # as a disk or a network that fails: an error that is no damage
    assert "cannot read" in fails(nursery, scene).message()


def test_with_the_archive_out_of_reach_it_goes_on_but_does_not_begin(nursery: Nursery, scene: Scene) -> None:
    Path(scene.archive.store.address).rmdir()
    assert "nobody knows whether" in fails(nursery, scene).message()
    scene.put(home=[15], archive=[])
    goes_on(nursery, scene)
    assert ("resume", 15) in scene.happened()


def test_without_keys_for_its_archive_it_goes_on_but_does_not_begin(
    nursery: Nursery, new_run: NewRun, straight: RunFolder, tmp_path: Path
) -> None:
    seats = "location: FI, operator: Us, operator_seat: FI, owner_seat: FI, keys_held_by: team"
    service = f"{{name: rig, title: A rig, {seats}, endpoint: 'https://localhost:1'}}"
    archives = f"storage.archives=[{{address: 's3://rig/bucket', service: {service}}}]"
    run = new_run(*SAVING, "policy=eu", archives, "storage.ship_minutes=0")
    ranks = nursery.start(run, 2)
    assert ranks.wait() == [2, 2], ranks.log()
    assert "no keys for rig" in ranks.message() and losses(run) == {}
    scene = Scene(straight, run, tmp_path)
    scene.put(home=[15], archive=[])
    goes_on(nursery, scene)
    assert ("resume", 15) in scene.happened()


def test_weights_alone_are_passed_over(nursery: Nursery, scene: Scene, straight: RunFolder) -> None:
    scene.put(home=[], archive=[5])
    with weights_only(saved_at_home(Catalog(straight.checkpoints).find(10))) as weights:
        copy(weights, scene.archive)
    goes_on(nursery, scene)
    assert scene.happened() == [("fetched", 5), ("resume", 5)]


def test_weights_alone_at_home_are_refused(nursery: Nursery, scene: Scene, straight: RunFolder) -> None:
    with weights_only(saved_at_home(Catalog(straight.checkpoints).find(10))) as weights:
        copy(weights, scene.archive)
        folder = scene.home.begin(10)
        for record in weights.manifest.files:
            (folder / record.name).write_bytes(b"".join(weights.blocks(record)))
        scene.home.commit(weights.manifest)
    with pytest.raises(UserError, match="holds weights only"):
        fetch(open_contents(scene.archive.find(10)), scene.home)
    ranks = nursery.start(scene.run, 2)
    assert ranks.wait() == [2, 2]
    assert "holds weights only, and no run can go on from it" in ranks.log()


def test_an_archive_alone_can_be_exported(scene: Scene, straight: RunFolder, tmp_path: Path) -> None:
    scene.put(home=[], archive=[10])
    there = export(model_at(Away(scene.archive)), tmp_path / "there").folder
    here = export(model_at(Home.of(straight), 10), tmp_path / "here").folder
    assert {file.name: file.read_bytes() for file in there.iterdir()} == {
        file.name: file.read_bytes() for file in here.iterdir()
    }
