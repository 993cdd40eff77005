#!/bin/bash
# PALS mpiexec on the nodes of a PBS job, one process a rank. Reads AIFTRAIN_* and what PBS sets. By hand, in a run
# folder: qsub -S /bin/bash -l select=NODES:mpiprocs=RANKS_OF_A_NODE -l place=scatter -v AIFTRAIN_PROGRAM=PYTHON pbs.sh
set -euo pipefail
: "${AIFTRAIN_RUN:=${PBS_O_WORKDIR:-$PWD}}"
cd -- "${AIFTRAIN_WORKDIR:-$AIFTRAIN_RUN}"
umask "$(printf %o $((0777 & ~0$(stat -c %a -- "$AIFTRAIN_RUN"))))" # the run folder's readers may read on: PBS sets 077
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=0
if ((${#attempts[@]})); then last=${attempts[-1]##*-}; fi
AIFTRAIN_ATTEMPT=$((10#$last + 1))
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
exec >>"$logs/launcher.log" 2>&1  # PBS shows a job's output when the job has ended
mapfile -t ranks <"$PBS_NODEFILE" # a line a rank, which names its node
nodes=$(sort -u "$PBS_NODEFILE" | wc -l)
MASTER_ADDR=${ranks[0]}
if ((nodes == 1)); then MASTER_ADDR=127.0.0.1; fi
MASTER_PORT=$((10000 + 10#${PBS_JOBID//[^0-9]*/} % 20000)) # below the ports that systems hand out by themselves
while grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$MASTER_PORT")" /proc/net/tcp /proc/net/tcp6; do ((MASTER_PORT += 1)); done
export AIFTRAIN_ATTEMPT MASTER_ADDR MASTER_PORT
: "${AIFTRAIN_STEP:=${AIFTRAIN_MPIEXEC:-mpiexec} -n ${#ranks[@]} --ppn $((${#ranks[@]} / nodes)) ${AIFTRAIN_PROGRAM:-python3}}"
asked=
# shellcheck disable=SC2329 # the trap calls it
ask() { # Rank 0 runs on this node, the job's first, and has the others save and leave with it.
    asked=1
    until [[ -s $logs/rank-00000.start.json ]]; do kill -0 "$running" 2>/dev/null && sleep 0.1 || return 0; done
    if [[ $(<"$logs/rank-00000.start.json") =~ \"pid\":\ ([0-9]+) ]]; then kill -TERM "${BASH_REMATCH[1]}" || true; fi
}
declare -a step
eval "step=($AIFTRAIN_STEP)" # a list in shell quotes: mpiexec, its options, Python
"${step[@]}" -m aiftrain.train "$AIFTRAIN_RUN" &
running=$!
# PBS signals the job's whole session. SIGTERM ends the shell around this script, and the job with it; SIGURG ends nobody:
# after `qsig -s SIGURG` the ranks have the time that they need.
trap ask URG TERM
sleep "${AIFTRAIN_ASK_AFTER:-infinity}" & # PBS itself leaves no time to save at the end of the wall time
clock=$!
while kill -0 "$running" 2>/dev/null; do # a signal ends a wait, not mpiexec
    wait -n || true
    if [[ -z $asked ]] && ! kill -0 "$clock" 2>/dev/null; then ask; fi
done
kill "$clock" 2>/dev/null || true
wait "$running" && code=0 || code=$?
if grep -qs '"exit_code": 75' "$logs/rank-00000.exit.json"; then code=75; fi # saved, and wants to go on
exit "$code"
