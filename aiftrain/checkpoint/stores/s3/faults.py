"""What went wrong with a request, and in words a person can act on. No message has a key or a header of ours in it."""

from __future__ import annotations

import ssl
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from aiftrain.errors import AiftrainError, MachineError, UserError

MISSING = ("404", "NoSuchKey", "NotFound")  # codes for an object that is not there
OTHERWISE = ("412", "PreconditionFailed", "ConditionalRequestConflict")  # and for one that is not as it should be

_PASSING = {
    "BadDigest",  # changed on the way: sent again
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",  # the same
}
_QUOTA = {"QuotaExceeded", "InsufficientStorageSpace", "InsufficientCapacity", "StorageFull"}
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired", "InvalidToken", "ExpiredTokenException"}
_UNTRUSTED = (18, 19, 20, 21)  # X509_V_ERR_*: self-signed, or signed by nobody known
_EXPIRED_CERTIFICATE, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64


class RefusalError(Exception):
    """The service said no. `after_silence`: a try before had no answer, and may have had its effect."""

    def __init__(self, error: ClientError, *, after_silence: bool) -> None:
        super().__init__(str(error))
        metadata: dict[str, Any] = error.response.get("ResponseMetadata", {})
        self.code = code_of(error)
        self.status = int(metadata.get("HTTPStatusCode", 0))
        self.date: str | None = metadata.get("HTTPHeaders", {}).get("date")
        self.after_silence = after_silence


def code_of(error: ClientError) -> str:
    """S3's name for why it refused."""
    return str(error.response.get("Error", {}).get("Code", ""))


def passes(error: Exception) -> bool:
    """Whether it is worth trying again: silence, a broken connection, a service in trouble."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code_of(error) in _PASSING or status in (429, 500, 502, 503, 504)
    if isinstance(error, SSLError):
        return _verification(error) is None
    return isinstance(error, HTTPError | HTTPClientError | HTTPException | IncompleteReadError | OSError)


def explain_refusal(refusal: RefusalError, what: str, host: str, keys: str) -> AiftrainError:
    """`what`: what was tried, such as `read s3://lumi-o/bucket/name`; `keys`: where the keys come from."""
    code = refusal.code
    if code == "RequestTimeTooSkewed":
        return MachineError(f"cannot {what}: the clock of this machine {_skew(refusal.date)} that of {host}: set it")
    if code == "SignatureDoesNotMatch":
        return UserError(f"cannot {what}: the secret key is not that of the access key ({keys})")
    if code == "InvalidAccessKeyId":
        return UserError(f"cannot {what}: {host} does not know the access key ({keys}): it is wrong, or has ended")
    if code in _EXPIRED:
        return UserError(f"cannot {what}: the keys have ended ({keys}): make new ones")
    if code in ("AccessDenied", "UserSuspended", "AllAccessDisabled", "403") or refusal.status in (401, 403):
        return _denied(refusal, what, host, keys)
    if code == "NoSuchBucket":
        return UserError(f"cannot {what}: {host} has no such bucket; make it first, or correct its name")
    return MachineError(f"cannot {what}: {host} answers {code or 'nothing more'} ({refusal.status})")


def _denied(refusal: RefusalError, what: str, host: str, keys: str) -> AiftrainError:
    """Quotas are refused with the same status as what one may not do."""
    if refusal.code in _QUOTA:
        return MachineError(
            f"cannot {what}: the quota at {host} is used up ({refusal.code}): remove old checkpoints there, "
            "or ask for more"
        )
    return UserError(f"cannot {what}: {host} does not allow it to these keys ({keys}; {refusal.code})")


def explain_silence(error: Exception, what: str, host: str, waited: float) -> MachineError:
    """After `waited` seconds of trying."""
    if isinstance(error, SSLError) and (refused := _verification(error)):
        return MachineError(f"cannot {what}: {_certificate(refused, host)}")
    if isinstance(error, NameResolutionError):
        reason = f"{host} has no address here: is its name right, and may this machine ask for names?"
    elif isinstance(error, NewConnectionError):
        reason = f"{host} cannot be reached ({str(error).rpartition(': ')[2]})"
    elif _timed_out(error):
        reason = f"{host} does not answer in time"
    elif isinstance(error, ClientError):
        reason = f"{host} answers {code_of(error)}"
    else:
        reason = f"{host} breaks off the connection"
    return MachineError(f"cannot {what}: {reason}; tried for {waited:.0f} seconds")


def _timed_out(error: Exception) -> bool:
    """A wait that ended while a request was still being sent is to urllib3 a connection that was aborted."""
    aborted = isinstance(error, ProtocolError) and any(isinstance(cause, TimeoutError) for cause in error.args)
    return aborted or isinstance(error, HTTPTimeoutError)


def _verification(error: SSLError) -> ssl.SSLCertVerificationError | None:
    """Why the certificate was refused; None where something else went wrong with TLS."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        inner = cause.args[0] if cause.args and isinstance(cause.args[0], BaseException) else None
        cause = inner or cause.__cause__ or cause.__context__
    return cause


def _certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED_CERTIFICATE:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        return f"the certificate of {host} has expired: tell its operator (today is {today}, says this machine)"
    if code == _NOT_YET:
        return f"the certificate of {host} is not valid yet: is the clock of this machine right?"
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return f"who answers for {host} has a certificate of another name: somebody else, or a wrong endpoint"
    if code in _UNTRUSTED:
        return (
            f"the certificate of {host} is signed by nobody whom this machine trusts: if it is the operator's own, "
            "storage.service.ca_file=<their certificate>"
        )
    return f"the certificate of {host} is refused: {error.verify_message}"


def _skew(date: str | None) -> str:
    """How far from the service's clock this machine's is."""
    if date is None:
        return "differs too much from"
    ahead = time.time() - parsedate_to_datetime(date).timestamp()
    return f"is {abs(ahead):,.0f} seconds {'ahead of' if ahead > 0 else 'behind'}"
