"""The table of verbs, and the overview that `--help` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """`module` is imported when the verb is used; it has `add_arguments(parser)` and `run(options) -> exit code`."""

    name: str
    module: str
    usage: str
    summary: str


LAUNCH = "launch"

VERBS = (
    Verb(LAUNCH, "launch", "[OVERRIDE ...]", "train, here or as a job of the site's scheduler (the default)"),
    Verb("plan", "plan", "[OVERRIDE ...]", "layout, memory, tokens and FLOPs of a run; starts nothing"),
    Verb("script", "script", "[OVERRIDE ...]", "print the job script and touch nothing"),
    Verb("factories", "shelves", "[show NAME]", "the sites that are shipped"),
    Verb("hardware", "shelves", "[show NAME]", "the node types that are shipped"),
    Verb("storage", "shelves", "[show NAME|check ADDRESS]", "the storage services that are shipped; try yours"),
    Verb("recipes", "shelves", "[show NAME]", "the runs that are shipped"),
    Verb("data", "data", "prepare|inspect [OVERRIDE ...]", "make tokens of text; look at what was made"),
    Verb("status", "status", "[RUN ...]", "where runs stand: their jobs, steps, losses, time left"),
    Verb("watch", "watch", "RUN", "show a run live, as the one who started it sees it"),
    Verb("profile", "step_profile", "RUN", "where the time of a run's steps went, if it ran with profile=true"),
    Verb("logs", "logs", "RUN", "what a rank prints; -f follows it to the run's end"),
    Verb("cancel", "cancel", "RUN", "have a run save and leave, in the queue or here"),
    Verb("checkpoints", "checkpoints", "ACTION PLACE [TO]", "list, verify, copy, prune, seal, sign, export them"),
    Verb("keys", "keys", "new|show FILE", "make a key to open sealed checkpoints with, or to sign"),
    Verb("ship", "ship", "RUN", "carry what a run has saved to its archives"),
    Verb("egress", "egress", "RUN", "whom a run's processes spoke to, and which rule allowed it"),
    Verb("env", "env", "lock|diff|wheelhouse|pack WORD ...", "the software on the nodes: lock it, fetch it, pack it"),
    Verb("bench", "bench", "[OVERRIDE ...]", "measure this machine: products, memory, links, training steps"),
    Verb("doctor", "doctor", "[OVERRIDE ...]", "is this machine fit to run it"),
    Verb("sample", "sample", 'RUN "text"', "have a trained model continue a text"),
)

BY_NAME = {verb.name: verb for verb in VERBS}

OVERVIEW = """\
aiftrain trains language models, on European supercomputers and on your machine.

usage: python -m aiftrain [VERB] [group=choice] [key=value] ... [options]

verbs:
{verbs}

options:
  --json              one JSON document on stdout; messages go to stderr
  -m, --multirun      every combination: recipe=smoke optimizer.lr=1e-3,2e-3
  --cfg job           print the composed configuration (--resolve: filled in)
  --completion SHELL  completion: eval "$(python -m aiftrain --completion bash)"
  --version           print the version
  -h, --help          this; after a verb, that verb's own

groups: recipe factory hardware parallelism model data optimizer storage
        tracking launcher policy access
keys:   nodes time account seed run_dir train.KEY GROUP.KEY

  python -m aiftrain recipe=smoke        train a small model here, in minutes
  python -m aiftrain recipes             what else there is
  python -m aiftrain plan recipe=eu-llm-7b factory=lumi

exit codes: 0 done; 1 failed; 2 asked for something impossible;
            75 stopped early, start it again to go on; 130 Ctrl-C"""


def overview() -> str:
    """The text of `python -m aiftrain --help`."""
    lines = [f"  {verb.name:<12} {verb.summary}" for verb in VERBS]
    return OVERVIEW.format(verbs="\n".join(lines))
