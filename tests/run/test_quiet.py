"""The variables that keep libraries quiet, and what the libraries here make of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aiftrain.run.policy import PolicySpec
from aiftrain.run.quiet import PROXIES, VARIABLES, loud, silence

_NOWHERE = "http://127.0.0.1:9"


def silenced(policy: PolicySpec | None = None, **environ: str) -> dict[str, str]:
    silence(environ, policy or PolicySpec())
    return environ


def test_proxies_lead_nowhere_unless_the_policy_names_them() -> None:
    foreign = silenced(https_proxy="http://proxy.example.com:3128", ALL_PROXY="socks5://10.0.0.1:1080")
    assert {foreign[name] for name in PROXIES} == {_NOWHERE}
    named = silenced(PolicySpec(hosts=("proxy.example.eu:3128",)), https_proxy="http://proxy.example.eu:3128")
    assert named["https_proxy"] == "http://proxy.example.eu:3128"
    assert named["HTTPS_PROXY"] == named["http_proxy"] == _NOWHERE


def test_what_the_policy_names_is_reached_past_the_proxy() -> None:
    environ = silenced(PolicySpec(hosts=("a.example.eu:8443",), wandb_hosts=("w.example.eu",)), no_proxy="*")
    assert environ["no_proxy"] == environ["NO_PROXY"] == "localhost,127.0.0.1,::1,a.example.eu,w.example.eu"


def test_a_library_that_was_changed_is_heard() -> None:
    hub: dict[str, Any] = {"huggingface_hub.constants": SimpleNamespace(HF_HUB_OFFLINE=False)}
    assert list(loud(hub)) == ["huggingface_hub.constants.HF_HUB_OFFLINE is False"]
    assert list(loud({})) == []


@pytest.mark.slow
def test_the_libraries_here_obey() -> None:
    """Each switch that `loud` looks at exists, and is loud without our variables: it would see a change."""
    program = """
import importlib, json, sys
from aiftrain.run import quiet
for name in quiet._EFFECTS:
    if name != "datasets.config":
        importlib.import_module(name)
missing = [f"{n}.{s}" for n, switches in quiet._EFFECTS.items() for s in switches
           if n in sys.modules and not hasattr(sys.modules[n], s)]
import wandb.env
print(json.dumps([list(quiet.loud()), missing, wandb.env.error_reporting_enabled()]))
"""
    bare = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    answers = [
        json.loads(subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout)
        for env in (bare | VARIABLES, bare | {"TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1"})
    ]
    assert answers[0] == [[], [], False]
    heard, _, reports = answers[1]
    assert reports
    assert {word.split(" ")[0] for word in heard} >= {
        "huggingface_hub.constants.HF_HUB_OFFLINE",
        "huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY",
        "torch._inductor.config.fx_graph_remote_cache",
    }
