"""Submitting: what is asked of sbatch, and what its answers become. A stand-in plays sbatch's part."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from aiftrain.errors import MachineError, UserError
from aiftrain.launch.jobs import job_numbers
from aiftrain.launch.slurm import submit
from aiftrain.run.folder import RunFolder, read_lines


@pytest.fixture
def ready(run_folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run folder with everything that a submission needs, and an empty PATH for stand-ins."""
    run_folder.write(run_folder.job_sh, "#!/bin/bash\n")
    run_folder.write_json(run_folder.data_json, {})
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return run_folder


def sbatch(tmp_path: Path, body: str) -> None:
    file = tmp_path / "bin" / "sbatch"
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_gives_the_job_number_and_submits_from_the_run_folder(ready: RunFolder, tmp_path: Path) -> None:
    sbatch(tmp_path, 'echo "$PWD" "$@" > called; echo "welcome to the site"; echo "4711;lumi"')
    assert submit(ready) == "4711"
    assert [record["job"] for record in read_lines(ready.jobs) if "job" in record] == ["4711"]
    assert (ready.path / "called").read_text() == f"{ready.path} --parsable job.sh\n"


def test_a_refusal_comes_in_the_words_of_sbatch(ready: RunFolder, tmp_path: Path) -> None:
    sbatch(tmp_path, 'echo "sbatch: error: Invalid account" >&2; exit 1')
    with pytest.raises(UserError, match="Invalid account"):
        submit(ready)


@pytest.mark.parametrize(
    "words",
    [
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        'If munged is up, restart with --num-threads=10\nMunge encode failed: Failed to access "/run/munge/socket"',
        "Batch job submission failed: Protocol authentication error",
    ],
)
def test_a_slurm_that_is_down_is_the_machines_fault(words: str, ready: RunFolder, tmp_path: Path) -> None:
    sbatch(tmp_path, f"echo 'sbatch: error: {words}' >&2; exit 1")
    with pytest.raises(MachineError, match=r"(Slurm does not answer|munge, .* does not work).*\n.*the same command"):
        submit(ready)
    assert job_numbers(ready) == []


def test_an_answer_without_a_number_is_no_success(ready: RunFolder, tmp_path: Path) -> None:
    sbatch(tmp_path, "echo ok")
    with pytest.raises(MachineError, match="no job number"):
        submit(ready)


def test_no_sbatch_here(ready: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no sbatch here"):
        submit(ready)


@pytest.mark.parametrize(("name", "words"), [("data_json", "not prepared"), ("job_sh", "no job.sh")])
def test_an_unfinished_run_folder_is_not_submitted(ready: RunFolder, tmp_path: Path, name: str, words: str) -> None:
    sbatch(tmp_path, "echo 1")
    Path(getattr(ready, name)).unlink()
    with pytest.raises(UserError, match=words):
        submit(ready)
