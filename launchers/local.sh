#!/bin/bash
# torchrun on this machine. Reads AIFTRAIN_*. `python -m aiftrain` does the same with a live view and clear errors.
set -euo pipefail
cd -- "$AIFTRAIN_WORKDIR"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=0
if ((${#attempts[@]})); then last=${attempts[-1]##*-}; fi
AIFTRAIN_ATTEMPT=$((10#$last + 1))
mkdir -p -- "$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")"
OMP_NUM_THREADS=$(($(nproc) / AIFTRAIN_RANKS))
if ((OMP_NUM_THREADS < 1)); then OMP_NUM_THREADS=1; fi
export AIFTRAIN_ATTEMPT OMP_NUM_THREADS
exec "$AIFTRAIN_PYTHON" -m torch.distributed.run --nnodes=1 --nproc-per-node="$AIFTRAIN_RANKS" \
    --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0 --local-addr=127.0.0.1 -m aiftrain.train "$AIFTRAIN_RUN"
