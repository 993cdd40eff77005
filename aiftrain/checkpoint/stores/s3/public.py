"""Who may look into a bucket besides those it was made for: as the service tells, and as a stranger finds.

What a service tells is its ACL (docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html) and its policy; not
every service has both, and who may not read them is not told. So strangers are asked to try, too: requests without
keys. What is for other customers of the service alone, no stranger finds; it is known from what is told.
GetBucketPolicyStatus is not asked: Ceph 16 calls a bucket public that is shared with one other user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aiftrain.checkpoint.stores.s3.client import Client
from aiftrain.checkpoint.stores.s3.faults import RefusalError
from aiftrain.checkpoint.stores.s3.probe import probe

_GROUPS = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "anybody",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "every customer of the service",
}


def openings(client: Client, prefix: str) -> list[str]:
    """Each way that the bucket is open, and how it is closed; nothing where it is private, as far as can be seen.

    Writes a small object below `prefix`, and removes it.
    """
    return [*_by_acl(client), *_by_policy(client), *_by_effect(client, prefix)]


def _by_acl(client: Client) -> Iterator[str]:
    acl = answer_to(client, "get_bucket_acl")
    for grant in acl.get("Grants", ()):
        who = _GROUPS.get(grant["Grantee"].get("URI", ""))
        if who:
            close = f"s3cmd setacl s3://{client.bucket} --acl-private"
            yield f"its ACL gives {who} {grant['Permission']} (to close it: {close})"


def _by_policy(client: Client) -> Iterator[str]:
    """Under a condition others than all may be meant: strangers try."""
    statements = _allowed(answer_to(client, "get_bucket_policy").get("Policy", "{}"))
    for statement in statements:
        if _is_for_all(statement) and not statement.get("Condition"):
            name = f" '{statement['Sid']}'" if statement.get("Sid") else ""
            close = f"(to close it: remove that, or s3cmd delpolicy s3://{client.bucket})"
            yield f"its policy{name} allows anybody {', '.join(_listed(statement.get('Action', '*')))} {close}"


def _by_effect(client: Client, prefix: str) -> Iterator[str]:
    stranger = client.as_anybody()
    try:
        if _may(stranger, "list_objects_v2", Prefix=prefix, MaxKeys=1):
            yield "a request without keys lists it (to close it: take its ACL and its policy away)"
        with probe(client, prefix) as key:
            client.call(f"write to {client.bucket}", "put_object", Key=key, Body=b"private")
            if _may(stranger, "head_object", Key=key):
                yield "a request without keys reads what lies there (to close it: take its ACL and its policy away)"
    finally:
        stranger.close()


def answer_to(client: Client, operation: str, **parameters: Any) -> dict[str, Any]:
    """What a service answers; nothing where it refuses to."""
    try:
        return client.call(f"ask {client.host} about {client.bucket}", operation, expected=None, **parameters)
    except RefusalError:
        return {}


def _may(client: Client, operation: str, **parameters: Any) -> bool:
    try:
        client.call(f"look at {client.bucket} as a stranger", operation, expected=None, **parameters)
    except RefusalError:
        return False
    return True


def _allowed(policy: str) -> list[dict[str, Any]]:
    """What a policy allows; its JSON has one of something without its list."""
    return [each for each in _listed(json.loads(policy).get("Statement", [])) if each.get("Effect") == "Allow"]


def _is_for_all(statement: dict[str, Any]) -> bool:
    """All but some are all."""
    principal = statement.get("Principal", {})
    named = principal.get("AWS", []) if isinstance(principal, dict) else principal
    return "*" in _listed(named) or "NotPrincipal" in statement


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
