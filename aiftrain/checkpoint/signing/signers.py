"""policy.signed_by: what counts as a checkpoint only if the holder of one of these keys vouches for it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aiftrain.checkpoint.saved import Saved
from aiftrain.checkpoint.signing.bundle import SIGNATURE
from aiftrain.checkpoint.signing.checkpoint import digests_signed, signature_faults
from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.data.files import reading
from aiftrain.errors import DamagedError, UserError
from aiftrain.run.policy import PolicySpec


@dataclass(frozen=True)
class Signers:
    """Keys, one of which has to have signed; none: anything counts. `rule` says so."""

    keys: tuple[PublicKey, ...]
    rule: str = "policy.signed_by"

    @classmethod
    def of(cls, policy: PolicySpec) -> Signers:
        return cls(tuple(PublicKey.parse(key.encode(), "policy.signed_by") for key in policy.signed_by))

    def check(self, saved: Saved, known: Container[str] = ()) -> Saved:
        """UserError, which names the rule, where none of the keys signed a checkpoint. No shard is read.

        `known`: digests of manifests that need no signature, for this very process wrote them. What is returned is
        compared with its manifest wherever it is used, though it is sealed: anyone can seal something else for it.
        """
        if not self.keys or saved.manifest.digest in known:
            return saved
        if faults := signature_faults(saved, self.keys):
            fits = f"sign it (python -m aiftrain checkpoints sign RUN --step {saved.manifest.step} --key FILE)"
            raise self._refusal(saved.address, "; ".join(fault.what for fault in faults), fits)
        return replace(saved, sealed=False)

    def check_folder(self, folder: Path, digests: Mapping[str, str]) -> None:
        """The same of a model's folder, whose files have these SHA-256 digests."""
        if not self.keys:
            return
        fits = f"sign it (python -m aiftrain checkpoints sign {folder} --key FILE)"
        file = folder / SIGNATURE
        if not file.exists():
            raise self._refusal(str(folder), "it is not signed", fits)
        try:
            with reading(file):
                signed = digests_signed(file.read_bytes(), str(file), self.keys)
        except DamagedError as error:
            raise self._refusal(str(folder), str(error), fits) from error
        if other := [name for name, digest in sorted(digests.items()) if signed.get(name) != digest]:
            raise self._refusal(str(folder), f"{', '.join(other)}: not what was signed", fits)

    def _refusal(self, where: str, why: str, fits: str) -> UserError:
        return UserError(f"{self.rule}: {where} does not count: {why}\n      {fits}, or name the key that signs")
