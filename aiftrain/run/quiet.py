"""What keeps libraries from phoning home, and native programs from going out over HTTP: environment variables.

Libraries read most of them when they are imported, so launchers set them before Python starts, and a rank once more
before it imports anything, whoever started it. A variable is a request: `loud` looks at what became of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType

from aiftrain.run.policy import PolicySpec, address_of, split_host

VARIABLES = {
    "DO_NOT_TRACK": "true",  # MLflow takes no other word for it
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_X_DISABLE_META": "true",
    "WANDB_X_DISABLE_MACHINE_INFO": "true",
    "OTEL_SDK_DISABLED": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "0",
    "TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE": "0",
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
# Of a library that is loaded: what its switches must not have become. (None, in torch: off, outside of Meta.)
_EFFECTS: dict[str, dict[str, object]] = {
    "huggingface_hub.constants": {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_TELEMETRY": False},
    "datasets.config": {"HF_DATASETS_OFFLINE": False},
    "torch._inductor.config": {"fx_graph_remote_cache": True, "autotune_remote_cache": True},
}

# A proxy that is not there, for clients in native code, which know nothing of our hook: Go's, Rust's, curl. What the
# policy allows they reach past it. Port 9 is `discard`, and only root could listen there.
NOWHERE = ("127.0.0.1", 9)
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def silence(environ: MutableMapping[str, str], policy: PolicySpec) -> None:
    """Set all of it in `environ`. A proxy that the policy names as one of its hosts stays."""
    environ.update(VARIABLES)
    allowed = {split_host(host) for host in policy.hosts}
    for name in PROXIES:
        if address_of(environ.get(name, "")) not in allowed:
            environ[name] = "http://{}:{}".format(*NOWHERE)
    past = ",".join([*_LOCAL, *(split_host(host)[0] for host in (*policy.hosts, *policy.wandb_hosts))])
    environ.update({"no_proxy": past, "NO_PROXY": past})


def loud(modules: Mapping[str, ModuleType] = sys.modules) -> Iterator[str]:
    """The switches of loaded libraries that let them phone home, in words."""
    for name, switches in _EFFECTS.items():
        module = modules.get(name)
        for switch, wrong in switches.items() if module else ():
            if getattr(module, switch, None) is wrong:
                yield f"{name}.{switch} is {wrong}"
