#!/bin/bash
# PALS mpiexec on the nodes of a PBS job, one process a rank, and again where ranks failed and their nodes are sound; where
# AIFTRAIN_CHAIN=follow-up, another job goes on. Reads what PBS sets and AIFTRAIN_*; by hand, in a run folder:
# qsub -l select=NODES:mpiprocs=RANKS_OF_A_NODE -l place=scatter -v AIFTRAIN_PROGRAM=PYTHON pbs.sh
set -euo pipefail
: "${AIFTRAIN_RUN:=${PBS_O_WORKDIR:-$PWD}}" "${AIFTRAIN_PROGRAM:=python3}"
cd -- "${AIFTRAIN_WORKDIR:-$AIFTRAIN_RUN}"
umask "$(printf %o $((0777 & ~0$(stat -c %a -- "$AIFTRAIN_RUN"))))" # the run folder's readers may read on: PBS sets 077
shopt -s nullglob
mapfile -t ranks <"$PBS_NODEFILE" # a line a rank, which names its node
nodes=$(sort -u "$PBS_NODEFILE" | wc -l)
MASTER_ADDR=${ranks[0]}
if ((nodes == 1)); then MASTER_ADDR=127.0.0.1; fi
: "${AIFTRAIN_STEP:=${AIFTRAIN_MPIEXEC:-mpiexec} -n ${#ranks[@]} --ppn $((${#ranks[@]} / nodes)) $AIFTRAIN_PROGRAM}"
declare -a step program
eval "step=($AIFTRAIN_STEP) program=($AIFTRAIN_PROGRAM)" # lists in shell quotes: mpiexec, its options, Python
asked=
# shellcheck disable=SC2329 # the trap calls it
ask() { # Rank 0 runs on this node, the job's first, and has the others save and leave with it.
    asked=1
    until [[ -s $logs/rank-00000.start.json ]]; do kill -0 "$running" 2>/dev/null && sleep 0.1 || return 0; done
    if [[ $(<"$logs/rank-00000.start.json") =~ \"pid\":\ ([0-9]+) ]]; then kill -TERM "${BASH_REMATCH[1]}" || true; fi
}
follow() { # another job, which waits for the end of this one
    local job
    job=$(cd -- "$AIFTRAIN_RUN" && qsub -W depend=afterany:"$PBS_JOBID" job.sh | tail -n 1) || return
    printf '{"job": "%s", "submitted": %s, "follows": "%s"}\n' "$job" "$(date +%s)" "$PBS_JOBID" >>"$AIFTRAIN_RUN/jobs.jsonl"
    echo "job $job follows"
}
sleep "${AIFTRAIN_ASK_AFTER:-infinity}" & # PBS itself leaves no time to save at the end of the wall time
clock=$!
next=here
while [[ $next == here ]]; do
    attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
    last=$(printf '%s\n' 0 "${attempts[@]##*/attempt-}" | grep -x '[0-9]*' | sort -n | tail -n 1)
    AIFTRAIN_ATTEMPT=$((10#$last + 1))
    logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
    mkdir -p -- "$logs"
    exec >>"$logs/launcher.log" 2>&1                            # PBS shows a job's output when the job has ended
    MASTER_PORT=$((10000 + 10#${PBS_JOBID//[^0-9]*/} % 20000)) # below the ports that systems hand out by themselves
    while grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$MASTER_PORT")" /proc/net/tcp /proc/net/tcp6; do ((MASTER_PORT += 1)); done
    export AIFTRAIN_ATTEMPT MASTER_ADDR MASTER_PORT
    "${step[@]}" -m "${AIFTRAIN_MODULE:-aiftrain.train}" "$AIFTRAIN_RUN" &
    running=$!
    # PBS signals the job's whole session. SIGTERM ends the shell around this script, and the job with it; SIGURG ends
    # nobody: after `qsig -s SIGURG` the ranks have the time that they need.
    trap ask URG TERM
    while kill -0 "$running" 2>/dev/null; do # a signal ends a wait, not mpiexec
        wait -n || true
        if [[ -z $asked ]] && ! kill -0 "$clock" 2>/dev/null; then ask; fi
    done
    wait "$running" && code=0 || code=$?
    left=UNLIMITED
    if [[ ${AIFTRAIN_WALLTIME-} ]]; then left=0:$((AIFTRAIN_WALLTIME - SECONDS)); fi
    now=("$AIFTRAIN_RUN" "$AIFTRAIN_ATTEMPT" 0 RUNNING "$left" 0)
    verdict=$("${program[@]}" -m aiftrain.launch.aftermath "${now[@]}") || verdict="$code end"
    read -r code next _ <<<"$verdict"
done
kill "$clock" 2>/dev/null || true
if [[ $next == queue ]] && ! { [[ ${AIFTRAIN_CHAIN-} == follow-up ]] && follow; }; then
    echo "nothing follows by itself: qsub job.sh goes on"
fi
exit "$code"
