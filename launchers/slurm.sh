#!/bin/bash
# One srun step, a task a rank or a torchrun a node, and another where ranks failed and their nodes are sound. A job whose
# time is up, or that has a bad node, is queued again. Reads what Slurm sets and AIFTRAIN_*; by hand, in a run folder,
# none of these is needed.
set -euo pipefail
: "${AIFTRAIN_RUN:=$PWD}" "${AIFTRAIN_WORKDIR:=$PWD}" "${AIFTRAIN_CHAIN:=none}" "${AIFTRAIN_RENDEZVOUS:=hostname}"
: "${AIFTRAIN_PROGRAM:=python3}" "${AIFTRAIN_STEP:=srun --kill-on-bad-exit=1 python3}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
[[ -f $AIFTRAIN_RUN/run.json ]] || { echo "there is no run in $AIFTRAIN_RUN: nothing to train" >&2 && exit 2; }
cd -- "$AIFTRAIN_WORKDIR"
shopt -s nullglob
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
case ${#nodes[@]}:$AIFTRAIN_RENDEZVOUS in
    1:*) MASTER_ADDR=127.0.0.1 ;; # some sites' host names lead to an address that no job may listen on
    *:address) MASTER_ADDR=$(ip -4 -oneline address show dev "$AIFTRAIN_INTERFACE" | sed -n '1s|.* inet \([^/ ]*\).*|\1|p') ;;
    *) MASTER_ADDR=${nodes[0]}${AIFTRAIN_SUFFIX-} ;;
esac
export MASTER_ADDR
unset SRUN_CPUS_PER_TASK # some people's profiles set it: it takes half of the cores from a step with masks
follow() { # another job, which waits for the end of this one
    local job
    job=$(cd -- "$AIFTRAIN_RUN" && sbatch --parsable "$@" job.sh | tail -n 1) || return
    job=${job%%;*}
    printf '{"job": "%s", "submitted": %s, "follows": "%s"}\n' "$job" "$(date +%s)" "$SLURM_JOB_ID" >>"$AIFTRAIN_RUN/jobs.jsonl"
    echo "job $job follows"
}
again() { # the job once more or, where Slurm does not let it, another one. $1: nodes to keep away from
    if [[ $AIFTRAIN_CHAIN == follow-up ]]; then
        if [[ $1 && $following ]]; then scontrol update JobId="$following" ExcNodeList="$1"; fi
    elif [[ $1 ]]; then
        follow --exclude="$1" || scontrol requeue "$SLURM_JOB_ID"
    else
        scontrol requeue "$SLURM_JOB_ID" || follow
    fi
}
now() { squeue --noheader --jobs="$SLURM_JOB_ID" --Format=State,TimeLeft,RestartCnt; }
# shellcheck disable=SC2329 # the trap calls it
told() { # by Slurm to end: at the end of the wall time the ranks may be killed before they have left
    local left=
    read -r _ left _ < <(now) || true
    if [[ $left =~ ^(0:00|INVALID)$ && $AIFTRAIN_CHAIN != none ]]; then again '' && exit 75; fi # INVALID: less than none
}
read -r _ _ restarts < <(now) || restarts=${SLURM_RESTART_COUNT:-0}
following=
if [[ $AIFTRAIN_CHAIN == follow-up ]]; then following=$(follow | tee /dev/stderr | cut -d ' ' -f 2) || true; fi
trap told TERM
next=here
while [[ $next == here ]]; do
    attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
    last=$(printf '%s\n' 0 "${attempts[@]##*/attempt-}" | grep -x '[0-9]*' | sort -n | tail -n 1)
    AIFTRAIN_ATTEMPT=$((10#$last + 1))
    mkdir -p -- "$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")"
    MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # below the ports that systems hand out by themselves
    while grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$MASTER_PORT")" /proc/net/tcp /proc/net/tcp6; do ((MASTER_PORT += 1)); done
    export AIFTRAIN_ATTEMPT MASTER_PORT
    eval "$AIFTRAIN_STEP -m ${AIFTRAIN_MODULE:-aiftrain.train} \"\$AIFTRAIN_RUN\" &" # a list in shell quotes: srun, the container, Python
    step=$!
    while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends a wait, not srun
    wait "$step" && code=0 || code=$?
    for ((patience = 60; patience > 0; patience--)); do
        if job=$(now); then break; fi
        sleep 10
    done
    eval "verdict=\$($AIFTRAIN_PROGRAM -m aiftrain.launch.aftermath \"\$AIFTRAIN_RUN\" $AIFTRAIN_ATTEMPT $restarts $job)" || verdict="$code end"
    read -r code next bad <<<"$verdict"
done
trap - TERM
case $next in
    queue) again "${bad-}" || echo "nothing follows by itself: sbatch job.sh goes on" >&2 ;;
    wait) exec sleep infinity ;;
    *) if [[ $following ]]; then scancel "$following"; fi ;;
esac
exit "$code"
