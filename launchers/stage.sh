#!/bin/bash
# Brings a packed environment to a disk of every node of a Slurm job, once, and takes it away when the job ends.
# Stands before a launcher's body. Reads AIFTRAIN_ARCHIVE and TMPDIR; sets AIFTRAIN_STAGED.
set -euo pipefail
export AIFTRAIN_STAGED="${TMPDIR:-/tmp}/aiftrain-$SLURM_JOB_ID"
on_each_node() { # $1: seconds it may take. A node that is gone keeps no job from its end.
    timeout "$1" srun --mpi=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c "${@:2}"
}
# shellcheck disable=SC2016 # each node's bash expands it
unpack='
    rm -rf -- "$AIFTRAIN_STAGED" && mkdir -p -m 700 -- "$AIFTRAIN_STAGED" && tar -xf "$0" -C "$AIFTRAIN_STAGED" || exit 1
    rm -f -- "$AIFTRAIN_STAGED.packed"
    "$AIFTRAIN_STAGED/bin/python" -c "" && exit
    echo "the packed Python does not start on $(hostname): $(grep ^home "$AIFTRAIN_STAGED/pyvenv.cfg") must be there" >&2
    exit 1'
# shellcheck disable=SC2016
trap 'on_each_node 60 '\''rm -rf -- "$AIFTRAIN_STAGED" "$AIFTRAIN_STAGED.packed"'\'' || true' EXIT
from=$AIFTRAIN_STAGED.packed
sbcast --force "$AIFTRAIN_ARCHIVE" "$from" || from=$AIFTRAIN_ARCHIVE # every node reads the shared file then
on_each_node 1800 "$unpack" "$from"
