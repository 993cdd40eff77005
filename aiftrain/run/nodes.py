"""The machines that a job runs on, by name and address: what its ranks say to each other stays inside."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from aiftrain.run.hostlist import expand
from aiftrain.run.reading import text_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL_IPV4 = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


def parse_address(text: str) -> Address | None:
    """The address that `text` writes out; None where it is a name. An IPv4 address in IPv6's form is one of IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def own_addresses(proc: Path = Path("/proc")) -> frozenset[Address]:
    """The addresses of this machine's interfaces, as the kernel lists them (proc_pid_net(5)); loopback is left out."""
    v4 = _LOCAL_IPV4.findall(text_of(proc / "net/fib_trie"))
    v6 = [str(ipaddress.IPv6Address(int(line[:32], 16))) for line in text_of(proc / "net/if_inet6").splitlines()]
    return frozenset(address for text in (*v4, *v6) if (address := parse_address(text)) and not address.is_loopback)


def job_names(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The names of the job's nodes, as the scheduler and the launcher give them, in lower case.

    Who sets a job's environment can add to them: this protects from libraries, not from who starts the run.
    """
    names = {socket.gethostname(), "localhost", environ.get("MASTER_ADDR", "")}
    suffix = environ.get("AIFTRAIN_SUFFIX", "")
    for node in expand(environ.get("SLURM_JOB_NODELIST", "")) + text_of(Path(environ.get("PBS_NODEFILE", ""))).split():
        names |= {node, node + suffix}
    return frozenset(name.lower() for name in names if name)


def name_servers(file: Path = Path("/etc/resolv.conf")) -> frozenset[Address]:
    """Those that this machine asks for the addresses of names (resolv.conf(5))."""
    lines = (line.split() for line in text_of(file).splitlines())
    servers = (parse_address(line[1]) for line in lines if len(line) > 1 and line[0] == "nameserver")
    return frozenset(server for server in servers if server)
