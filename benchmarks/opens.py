"""What the start of a rank asks of file systems: opens, and all calls that name a path, by where the path lies.

    python benchmarks/opens.py [--json] [--ranks 1 2 4] [--clients 64]

Real ranks of a tiny run over gloo, each under strace: a fresh start of two steps and a save, then a start that resumes
from that checkpoint; and without strace, the seconds from the start of the processes to the end of the first step.
Below the table: what 4,096 ranks on 1,024 nodes would ask together, computed from the last start and not measured; and
what rank 0 tells the others in a run on 1,024 nodes, with the time in which processes on this machine, all of them
connected, have fetched it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiftrain.cli.run_folder import write_run
from aiftrain.data.prepare import prepare
from aiftrain.launch.environment import local_environment, package_root
from aiftrain.plan.plan import make_plan
from aiftrain.plan.spec import resolve
from aiftrain.run.folder import RunFolder, read_lines
from aiftrain.run.layout import Execution
from aiftrain.run.spec import RunSpec

NODES, RANKS_PER_NODE = 1024, 4
TINY = (
    "recipe=smoke", "tracking=none", "model.vocab_size=400", "model.hidden_size=48", "model.intermediate_size=96",
    "model.num_layers=2", "model.num_heads=4", "model.num_kv_heads=2", "train.steps=2", "train.sequence_length=32",
    "train.global_batch=8", "train.micro_batch=2", "train.precision=fp32", "train.measure_matmul=false",
    "storage.save_every=2", "parallelism=zero1", "~data.sources.python-docs", "~data.sources.python-source",
)  # fmt: skip
PROGRAM = ("packages", "Python", "aiftrain")  # an image or an archive takes these off the shared file system
TOGETHER = ("run folder", "checkpoints", "data")  # what ranks share wherever Python comes from
_CALL = re.compile(r'^\d+ +(\w+)\((?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_OPENS = ("open", "openat", "openat2", "creat")

Counts = dict[str, dict[str, int]]  # place -> {"opens", "calls", "paths"}


def make_run(root: Path, name: str, ranks: int) -> tuple[RunFolder, RunSpec, Execution]:
    """A run folder as `launch` writes it, its corpus prepared."""
    text = root / "text.txt"
    text.write_text("".join(f"das Haus {i} la maison {i * 37 % 101}\n" for i in range(3000)), encoding="utf-8")
    own = (f"+data.sources.text={{kind: text, path: {text}, split: line}}", f"data.cache_dir={root}/data")
    spec = resolve([*TINY, *own, f"run_dir={root}/{name}", f"launcher.ranks_per_node={ranks}"])
    folder, plan = RunFolder(spec.run_folder), make_plan(spec)
    corpus = prepare(spec.data, vocab_size=spec.model.vocab_size, seed=spec.seed)
    folder.write_json(folder.data_json, corpus.model_dump(mode="json"))
    write_run(folder, spec, plan)
    return folder, spec, plan.execution


def start(folder: RunFolder, spec: RunSpec, execution: Execution, traces: list[Path]) -> None:
    """Start all ranks, each under strace where there are traces to be written, and wait for their end."""
    attempt, world = folder.last_attempt() + 1, execution.layout.world_size
    folder.attempt_logs(attempt).mkdir(parents=True)
    environment = local_environment(spec, execution.layout, attempt, len(os.sched_getaffinity(0)), os.environ)
    environment |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(world):
        command = [sys.executable, "-m", "aiftrain.train", str(folder.path)]
        if traces:
            command = [
                "strace",
                "-f",
                "-qq",
                "-y",
                "-s",
                "4096",
                "-e",
                "trace=%file",
                "-o",
                str(traces[rank]),
                *command,
            ]
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(subprocess.Popen(command, env=environment | own))
    if any([process.wait() for process in processes]):
        sys.exit(f"a rank failed: {folder.attempt_logs(attempt)}")


def seconds_to_first_step(folder: RunFolder, spec: RunSpec, execution: Execution) -> float:
    """From the start of the processes to rank 0's record of the first step."""
    started = time.time()
    start(folder, spec, execution, [])
    return float(next(read_lines(folder.metrics))["time"]) - started


def count(trace: Path, places: dict[str, list[Path]]) -> Counts:
    """What one rank did. A call in a folder that it has open counts where the folder is."""
    opens: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    paths: dict[str, set[str]] = {}
    for call, path, done in _calls(trace):
        place = next(name for name, folders in places.items() if any(map(Path(path).is_relative_to, folders)))
        calls[place] += 1
        opens[place] += done and call in _OPENS
        paths.setdefault(place, set()).add(path)
    return {p: {"opens": opens[p], "calls": calls[p], "paths": len(paths[p])} for p in places if calls[p]}


def _calls(trace: Path) -> Iterator[tuple[str, str, bool]]:
    """Name, path and success of each call that names a path."""
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match and match[3] and match[1] != "getcwd":
                yield (
                    match[1],
                    os.path.normpath(f"{match[2] or ''}/{match[3]}" if match[3][0] != "/" else match[3]),
                    " = -1 " not in line,
                )


def places(folder: RunFolder, root: Path) -> dict[str, list[Path]]:
    """Where files lie; the first that fits counts. "above" are folders on the way to the others, and all else."""
    kinds: dict[str, list[Path | str]] = {
        "checkpoints": [folder.checkpoints],
        "run folder": [folder.path],
        "data": [root],
        "aiftrain": [package_root() / "aiftrain"],
        "packages": [sys.prefix],
        "Python": [sys.base_prefix],
        "system": ["/usr", "/lib", "/lib64", "/bin", "/etc"],
        "kernel": ["/proc", "/sys", "/dev"],
        "/tmp": ["/tmp"],
        "above": ["/"],
    }
    return {name: list(map(Path, folders)) for name, folders in kinds.items()}


def briefing_of_a_large_run(corpus: Path) -> tuple[int, bytes]:
    """Bytes of the four files of eu-llm-7b on 1,024 nodes of LUMI, with the corpus of a run here; and what is told."""
    from aiftrain.train.briefing import Briefing, pack

    words = ["recipe=eu-llm-7b", "factory=lumi", f"nodes={NODES}", "train.global_batch=8192"]
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(path)
        spec = resolve([*words, f"run_dir={path}"])
        write_run(folder, spec, make_plan(spec))
        shutil.copy(corpus, folder.data_json)
        files = (folder.run_json, folder.plan_json, folder.data_json, folder.deepspeed_json)
        return sum(file.stat().st_size for file in files), pack(Briefing.read(folder))


def fetch(told: bytes, clients: int) -> float:
    """Seconds from rank 0's word until so many processes, which were connected, have it all."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    port = free_port()
    children = [_client(port, clients) for _ in range(clients)]
    store = TCPStore("127.0.0.1", port, clients + 1, True, timedelta(seconds=60))
    started = time.perf_counter()
    store.set("told", told)  # type: ignore[arg-type]  # it takes bytes
    store.wait(["all"], timedelta(seconds=60))
    seconds = time.perf_counter() - started
    for child in children:
        os.waitpid(child, 0)
    return seconds


def _client(port: int, clients: int) -> int:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    child = os.fork()
    if child:
        return child
    store = TCPStore("127.0.0.1", port, clients + 1, False, timedelta(seconds=60))
    store.get("told")
    if store.add("have it", 1) == clients:
        store.set("all", "")
    time.sleep(1)  # the store is still answering others
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(worlds: list[int], clients: int) -> dict[str, Any]:
    """Every start of every world, rank by rank; and the briefing."""
    with tempfile.TemporaryDirectory() as path:
        root = Path(path).resolve()
        starts, seconds = [], {}
        for world in worlds:
            seconds[world] = seconds_to_first_step(*make_run(root, f"timed-{world}", world))
            folder, spec, execution = make_run(root, f"run-{world}", world)
            for kind in ("fresh", "resumed"):
                traces = [root / f"{world}-{kind}-{rank}" for rank in range(world)]
                start(folder, spec, execution, traces)
                counts = [count(trace, places(folder, root)) for trace in traces]
                starts.append({"ranks": world, "start": kind, "counts": counts})
        plain, told = briefing_of_a_large_run(folder.data_json)
    briefing = {"files": plain, "told": len(told), "clients": clients, "seconds": fetch(told, clients)}
    return {"starts": starts, "seconds_to_first_step": seconds, "briefing": briefing}


def tables(result: dict[str, Any]) -> str:
    """For people: a line a rank, opens / calls that name a path."""
    names = list(dict.fromkeys(name for s in result["starts"] for counts in s["counts"] for name in counts))
    lines = ["opens/calls    " + "".join(f"{name:>14}" for name in names)]
    for begun in result["starts"]:
        for rank, counts in enumerate(begun["counts"]):
            row = "".join(f"{_cell(counts.get(name)):>14}" for name in names)
            lines.append(f"{begun['start']:8}{rank} of {begun['ranks']} {row}")
    waits = ", ".join(f"{seconds:.1f} s ({world})" for world, seconds in result["seconds_to_first_step"].items())
    lines += ["", f"to the end of the first step, without strace (ranks): {waits}"]
    return "\n".join([*lines, "", *_together(result["starts"][-1]["counts"]), "", _briefing(result["briefing"])])


def _cell(counts: dict[str, int] | None) -> str:
    return f"{counts['opens']}/{counts['calls']}" if counts else ""


def _together(counts: list[Counts]) -> Iterator[str]:
    """The last start, as if it had 4,096 ranks: rank 0 once, the last rank as all others."""
    ranks = NODES * RANKS_PER_NODE
    yield f"computed for {ranks:,} ranks on {NODES:,} nodes, from the last start:"
    for name in (*PROGRAM, *TOGETHER):
        first, other = counts[0][name], counts[-1][name]
        opens, calls = (first[what] + (ranks - 1) * other[what] for what in ("opens", "calls"))
        different = f", {NODES * other['paths']:,} if each node asks for a path once" if name in PROGRAM else ""
        yield f"  {name:12}{opens:>12,} opens{calls:>14,} calls{different}"


def _briefing(briefing: dict[str, Any]) -> str:
    return (
        f"told to each rank of eu-llm-7b on {NODES:,} nodes: {briefing['told']:,} bytes for files of "
        f"{briefing['files']:,}; "
        f"{briefing['clients']} processes here have it after {briefing['seconds'] * 1000:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace shows what files a process opens, and is not installed: apt-get install strace")
    result = measure(options.ranks, options.clients)
    print(json.dumps(result, indent=2) if options.json else tables(result))


if __name__ == "__main__":
    main()
