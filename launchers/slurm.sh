# One srun step, one task a rank. Reads AIFTRAIN_* and what Slurm sets; needs no aiftrain on this node.
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
MASTER_ADDR=${nodes[0]}
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # below the ports that systems hand out by themselves
export AIFTRAIN_ATTEMPT MASTER_ADDR MASTER_PORT
declare -a step
eval "step=($AIFTRAIN_STEP)" # a list in shell quotes: srun, its options, the container, Python
"${step[@]}" -m aiftrain.train "$AIFTRAIN_RUN"
