"""Who has to have signed what `checkpoints copy` and `export` give out."""

from __future__ import annotations

import argparse

from aiftrain.checkpoint.signing.keys import PublicKey
from aiftrain.checkpoint.signing.signers import Signers
from aiftrain.run.policy import PolicySpec
from aiftrain.run.spec import RunSpec


def demanded(run: RunSpec | None, options: argparse.Namespace) -> Signers:
    """The holder of --public-key, else those that the policy of the run names."""
    if options.public_key:
        return Signers((PublicKey.read(options.public_key),), "--public-key")
    return Signers.of(run.policy if run else PolicySpec())
