#!/bin/bash
# torchrun on this machine. Reads AIFTRAIN_*; by hand, in a run folder, AIFTRAIN_RANKS is enough.
# `python -m aiftrain` does the same with a live view and clear errors.
set -euo pipefail
: "${AIFTRAIN_RUN:=$PWD}" "${AIFTRAIN_WORKDIR:=$PWD}" "${AIFTRAIN_RANKS:?how many ranks there are to be}"
[[ -f $AIFTRAIN_RUN/run.json ]] || { echo "there is no run in $AIFTRAIN_RUN: nothing to train" >&2 && exit 2; }
flock --nonblock "$AIFTRAIN_RUN/lock" true || [[ $? != 1 ]] || { echo "$AIFTRAIN_RUN is in use by another run" >&2 && exit 2; }
cd -- "$AIFTRAIN_WORKDIR"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=$(printf '%s\n' 0 "${attempts[@]##*/attempt-}" | grep -x '[0-9]*' | sort -n | tail -n 1)
AIFTRAIN_ATTEMPT=$((10#$last + 1))
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
: "${OMP_NUM_THREADS:=$(($(nproc) / AIFTRAIN_RANKS))}" "${GLOO_SOCKET_IFNAME:=lo}" "${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:=300}"
if ((OMP_NUM_THREADS < 1)); then OMP_NUM_THREADS=1; fi
export AIFTRAIN_ATTEMPT OMP_NUM_THREADS GLOO_SOCKET_IFNAME TORCH_ELASTIC_SHUTDOWN_TIMEOUT
running=
trap 'if [[ $running ]]; then kill -TERM "$running"; fi' TERM INT HUP # torchrun has the ranks save and leave
setsid "${AIFTRAIN_PYTHON:-python3}" -m torch.distributed.run --nnodes=1 --nproc-per-node="$AIFTRAIN_RANKS" \
    --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0 --local-addr=127.0.0.1 -m "${AIFTRAIN_MODULE:-aiftrain.train}" "$AIFTRAIN_RUN" &
running=$!
while kill -0 "$running" 2>/dev/null; do wait "$running" || true; done # a signal ends a wait, not torchrun
wait "$running" && code=0 || code=$?
if ((code)) && [[ -f $logs/rank-00000.exit.json && $(<"$logs/rank-00000.exit.json") =~ \"exit_code\":\ (2|75)[^0-9] ]]; then
    code=${BASH_REMATCH[1]} # torchrun makes 1 of every failure
fi
exit "$code"
