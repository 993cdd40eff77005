# One srun step: a task a rank, or a torchrun a node. Reads AIFTRAIN_* and what Slurm sets; needs no aiftrain here.
set -euo pipefail
cd -- "$AIFTRAIN_WORKDIR"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=0
if ((${#attempts[@]})); then last=${attempts[-1]##*-}; fi
AIFTRAIN_ATTEMPT=$((10#$last + 1))
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
case ${#nodes[@]}:$AIFTRAIN_RENDEZVOUS in
    1:*) MASTER_ADDR=127.0.0.1 ;; # some sites' host names lead to an address that no job may listen on
    *:address) MASTER_ADDR=$(ip -4 -oneline address show dev "$AIFTRAIN_INTERFACE" | sed -n '1s|.* inet \([^/ ]*\).*|\1|p') ;;
    *) MASTER_ADDR=${nodes[0]}$AIFTRAIN_SUFFIX ;;
esac
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # below the ports that systems hand out by themselves
while grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$MASTER_PORT")" /proc/net/tcp /proc/net/tcp6; do ((MASTER_PORT += 1)); done
export AIFTRAIN_ATTEMPT MASTER_ADDR MASTER_PORT
trap : TERM # this script stays until the ranks have saved
code=0
eval "$AIFTRAIN_STEP -m aiftrain.train \"\$AIFTRAIN_RUN\"" || code=$? # a list in shell quotes: srun, the container, Python
if grep -qs '"exit_code": 75' "$logs/rank-00000.exit.json"; then code=75; fi # saved, and wants to go on
exit "$code"
