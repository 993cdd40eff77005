"""launcher=deepspeed: DeepSpeed's real runner on this machine, and over pdsh and ssh to a loopback sshd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aiftrain.errors import UserError
from aiftrain.launch.deepspeed_runner import check_deepspeed
from aiftrain.launch.scripted import descendants
from aiftrain.run.folder import RunFolder
from aiftrain.shipped import launchers_dir
from tests.conftest import small_execution, small_spec
from tests.launch import scripts
from tests.launch.scripts import interrupt, nobody_runs, saved, scripted_run, train, when_all_are_up

STEPS = {"does": "steps", "steps": 3, "seconds": 0.05}
LONG = {"does": "steps", "steps": 600, "seconds": 0.1, "save": 0.5}
INSTALL = "apt-get install pdsh openssh-client openssh-server"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
DEEPSPEED = {"name": "deepspeed"}

pytestmark = pytest.mark.ranks
over_ssh = pytest.mark.skipif(not (SSHD and shutil.which("pdsh") and shutil.which("ssh")), reason=INSTALL)


@pytest.fixture
def two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host file of two names of this machine, each reached through an sshd of our own, as `ssh` on PATH finds it."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it, and its package's start script is not run in a container
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPidFile none\n"
    )
    (folder / "config").write_text(
        f"Host *\nHostName 127.0.0.1\nPort {port}\nIdentityFile {folder}/user\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (folder / "ssh").chmod(0o755)
    (folder / "hosts").write_text("# two nodes\nlocalhost slots=1\n127.0.0.1\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    daemon = subprocess.Popen([str(SSHD), "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")])
    try:
        wait_for_ssh()
        yield folder / "hosts"
    finally:
        daemon.terminate()
        daemon.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_ssh() -> None:
    deadline = time.monotonic() + 10
    while subprocess.run(["ssh", "localhost", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        assert time.monotonic() < deadline, "sshd does not answer"
        time.sleep(0.1)


def test_a_run_to_its_end_on_this_machine(tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, DEEPSPEED, STEPS, STEPS)
    code, screen = train(folder)
    assert code == 0, screen
    assert (folder.attempt_logs(1) / "hostfile").read_text() == f"{socket.gethostname()} slots=2\n"
    assert nobody_runs(folder)


def test_interrupted_ranks_save_and_leave_with_75(tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, DEEPSPEED, LONG, LONG)
    interrupter = when_all_are_up(folder, interrupt)
    code, screen = train(folder)
    interrupter.join()
    assert (code, saved(folder)) == (75, {"saved-0", "saved-1"}), screen
    assert nobody_runs(folder)


def test_a_killed_rank_ends_the_run_and_leaves_no_orphans(tmp_path: Path) -> None:
    folder = scripted_run(tmp_path, DEEPSPEED, {"does": "steps", "steps": 80, "seconds": 0.1}, {"does": "vanish"})
    code, screen = train(folder)
    assert code == 1
    assert "rank 1 vanished" in screen
    assert nobody_runs(folder)


def test_a_launcher_that_a_signal_killed_is_no_success(tmp_path: Path) -> None:
    """To DeepSpeed it is: a negative code is not above 0."""
    folder = scripted_run(tmp_path, DEEPSPEED, LONG, LONG)
    given = os.environ | {"AIFTRAIN_RUN": str(folder.path)}
    script = subprocess.Popen(["bash", folder.job_sh], env=given)
    when_all_are_up(folder, lambda: None).join()
    parent = subprocess.run(["ps", "-o", "ppid=", str(scripts.pids(folder)[0])], capture_output=True, text=True)
    os.kill(int(parent.stdout), 9)
    assert script.wait(60) in (1, 75)  # the ranks see their parent die, save and leave; the run is not at its end
    assert nobody_runs(folder)


def test_by_hand_without_aiftrain(tmp_path: Path) -> None:
    """launchers/deepspeed.sh in the run folder, stopped as a scheduler would."""
    folder = scripted_run(tmp_path, DEEPSPEED, LONG, LONG)
    python = str(scripts.stand_in_python(tmp_path)).replace(" ", "\\ ")
    runner = f"{python} -m deepspeed.launcher.runner"
    given = os.environ | {"AIFTRAIN_DEEPSPEED": runner, "AIFTRAIN_PROGRAM": python, "AIFTRAIN_RANKS": "2"}
    script = subprocess.Popen(["bash", launchers_dir() / "deepspeed.sh"], cwd=folder.path, env=given)
    when_all_are_up(folder, script.terminate).join()
    assert script.wait(60) == 75
    assert saved(folder) == {"saved-0", "saved-1"}


@over_ssh
def test_ranks_on_other_nodes_get_the_run_folder_and_the_environment(
    two_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell on the way reads everything again: blanks, per cent signs and dollars arrive as they were."""
    folder = two_node_run(tmp_path, two_hosts, STEPS)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", 'hsn0,hsn1 "$(touch hacked)"')
    assert subprocess.run(["bash", folder.job_sh], timeout=120).returncode == 0
    environment = [(folder.attempt_logs(1) / f"rank-0000{rank}.env").read_text() for rank in (0, 1)]
    assert all("HF_HUB_OFFLINE=1" in text and "SITE=a b,c;$HOME" in text for text in environment)
    assert not list(tmp_path.rglob("hacked")) and not Path("/hacked").exists()


@over_ssh
def test_ranks_on_other_nodes_save_and_leave_with_75(two_hosts: Path, tmp_path: Path) -> None:
    folder = two_node_run(tmp_path, two_hosts, LONG)
    script = subprocess.Popen(["bash", folder.job_sh])
    when_all_are_up(folder, script.terminate).join()
    assert script.wait(60) == 75
    assert saved(folder) == {"saved-0", "saved-1"}
    assert nobody_runs(folder)


@over_ssh
def test_ranks_on_other_nodes_end_with_a_launcher_that_is_killed(two_hosts: Path, tmp_path: Path) -> None:
    folder = two_node_run(tmp_path, two_hosts, LONG)
    script = subprocess.Popen(["bash", folder.job_sh])
    when_all_are_up(folder, lambda: None).join()
    for pid in (*reversed(descendants(script.pid)), script.pid):
        with suppress(ProcessLookupError):  # it ended with those before it
            os.kill(pid, signal.SIGKILL)
    script.wait()
    assert nobody_runs(folder)


ODD_NODES = """#!/bin/bash
hide() {{ exec unshare --map-root-user --mount bash -c "mount $1 && ${{*: -1}}"; }}
case $* in
    *unreachable*) set -- -p 1 "$@" ;;
    *elsewhere*) hide '-t tmpfs none "{folder}"' "$@" ;;
    *bare*) hide '--bind /dev/null "{python}"' "$@" ;;
esac
exec {ssh} -F {config} "$@"
"""


@over_ssh
def test_nodes_that_cannot_start_ranks_are_named_at_once(two_hosts: Path, tmp_path: Path) -> None:
    """One does not answer, one has another file system in the run folder's place, one lacks Python."""
    folder, python = two_node_run(tmp_path, two_hosts, STEPS), scripts.stand_in_python(tmp_path)
    two_hosts.write_text("localhost\nunreachable\nelsewhere\nbare\n")
    names = {"folder": str(folder.path).replace("$", r"\$"), "python": python, "config": two_hosts.with_name("config")}
    two_hosts.with_name("ssh").write_text(ODD_NODES.format(ssh=shutil.which("ssh", path="/usr/bin"), **names))
    told = subprocess.run(["bash", folder.job_sh], capture_output=True, text=True, timeout=60)
    assert (told.returncode, list(folder.logs.rglob("*.start.json"))) == (1, [])
    assert "unreachable does not answer to ssh" in told.stderr
    assert "elsewhere does not see" in told.stderr and "bare has no" in told.stderr
    assert "localhost" not in told.stderr


def two_node_run(tmp_path: Path, hosts: Path, behaviour: dict[str, object]) -> RunFolder:
    factory = {"name": "local", "title": "This machine", "env": {"SITE": "a b,c;$HOME"}}
    launcher = DEEPSPEED | {"hostfile": str(hosts), "ranks_per_node": 1}
    return scripted_run(tmp_path, launcher, behaviour, behaviour, nodes=2, factory=factory)


@pytest.mark.parametrize(
    ("hosts", "nodes", "message"),
    [
        (None, 2, "nodes=2: say which"),
        ("nid1\nnid2\n", 2, "there is no pdsh and no ssh here: apt-get install pdsh"),
        ("nid1\n", 1, "there is no pdsh"),
        ("nid1\n", 2, "names 1: nid1"),
    ],
)
def test_what_cannot_start_is_said_before(
    hosts: str | None, nodes: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "hosts").write_text(hosts or "")
    spec = small_spec(launcher=DEEPSPEED | {"hostfile": hosts and str(tmp_path / "hosts")})
    with pytest.raises(UserError, match=message):
        check_deepspeed(spec, small_execution().layout.model_copy(update={"nodes": nodes}), {})


def test_this_machine_needs_no_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "hosts").write_text(f"{socket.gethostname()} slots=2\n")
    spec = small_spec(launcher=DEEPSPEED | {"hostfile": str(tmp_path / "hosts")})
    check_deepspeed(spec, small_execution().layout, {})
