#!/bin/bash
# PALS mpiexec on the nodes of a PBS job, one process a rank. Reads AIFTRAIN_* and what PBS sets.
set -euo pipefail
cd -- "$AIFTRAIN_WORKDIR"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=0
if ((${#attempts[@]})); then last=${attempts[-1]##*-}; fi
AIFTRAIN_ATTEMPT=$((10#$last + 1))
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
exec >>"$logs/launcher.log" 2>&1 # PBS shows a job's output when the job has ended
read -r MASTER_ADDR <"$PBS_NODEFILE"
MASTER_PORT=$((10000 + 10#${PBS_JOBID//[^0-9]*/} % 20000)) # below the ports that systems hand out by themselves
while grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$MASTER_PORT")" /proc/net/tcp /proc/net/tcp6; do ((MASTER_PORT += 1)); done
export AIFTRAIN_ATTEMPT MASTER_ADDR MASTER_PORT
asked=
ask() { # Rank 0 runs on this node, the job's first, and has the others save and leave with it.
    asked=1
    until [[ -s $logs/rank-00000.start.json ]]; do kill -0 "$running" 2>/dev/null && sleep 0.1 || return 0; done
    [[ $(<"$logs/rank-00000.start.json") =~ \"pid\":\ ([0-9]+) ]] && kill -TERM "${BASH_REMATCH[1]}" || true
}
declare -a step
eval "step=($AIFTRAIN_STEP)" # a list in shell quotes: mpiexec, its options, Python
setsid "${step[@]}" -m aiftrain.train "$AIFTRAIN_RUN" &
running=$!
trap ask TERM
sleep "${AIFTRAIN_ASK_AFTER:-infinity}" & # PBS itself gives 10 s between SIGTERM at the wall time and SIGKILL
clock=$!
while kill -0 "$running" 2>/dev/null; do # a signal ends a wait, not mpiexec
    wait -n || true
    if [[ -z $asked ]] && ! kill -0 "$clock" 2>/dev/null; then ask; fi
done
kill "$clock" 2>/dev/null || true
wait "$running" && code=0 || code=$?
if grep -qs '"exit_code": 75' "$logs/rank-00000.exit.json"; then code=75; fi # saved, and wants to go on
exit "$code"
