#!/bin/bash
# mpiexec of Open MPI, MPICH, Intel MPI or Cray's PALS, one process a rank; without MASTER_ADDR they meet over mpi4py.
# Reads AIFTRAIN_*; by hand, in a run folder, AIFTRAIN_RANKS is enough. Inside a job mpiexec knows the nodes by itself;
# elsewhere AIFTRAIN_HOSTFILE names them, one a line.
set -euo pipefail
: "${AIFTRAIN_RUN:=$PWD}" "${AIFTRAIN_WORKDIR:=$PWD}" "${AIFTRAIN_RANKS:?how many ranks there are to be}"
cd -- "$AIFTRAIN_WORKDIR"
hosts=()
if [[ -n ${AIFTRAIN_HOSTFILE-} ]]; then mapfile -t hosts < <(awk 'NF && !/^#/ { print $1 }' "$AIFTRAIN_HOSTFILE"); fi
: "${AIFTRAIN_RANKS_PER_NODE:=$((AIFTRAIN_RANKS / (${#hosts[@]} ? ${#hosts[@]} : ${SLURM_JOB_NUM_NODES:-1})))}"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=$(printf '%s\n' 0 "${attempts[@]##*/attempt-}" | grep -x '[0-9]*' | sort -n | tail -n 1)
: "${AIFTRAIN_ATTEMPT:=$((10#$last + 1))}" "${OMP_NUM_THREADS:=$(($(nproc) / AIFTRAIN_RANKS_PER_NODE))}"
if ((OMP_NUM_THREADS < 1)); then OMP_NUM_THREADS=1; fi
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
export AIFTRAIN_ATTEMPT OMP_NUM_THREADS
declare -a mpiexec program options=(-n "$AIFTRAIN_RANKS")
eval "mpiexec=(${AIFTRAIN_MPIEXEC:-mpiexec}) program=(${AIFTRAIN_PROGRAM:-python3})" # lists in shell quotes
named() { printf '%s\n' "${hosts[@]/%/${1-}}" | paste -sd,; } # a,b or, with an ending, a:2,b:2
case $("${mpiexec[@]}" --version 2>&1) in
    *'Open MPI'* | *OpenRTE*)
        options+=(--map-by "ppr:$AIFTRAIN_RANKS_PER_NODE:node:oversubscribe" --bind-to none)
        if ((${#hosts[@]})); then options+=(--host "$(named ":$AIFTRAIN_RANKS_PER_NODE")"); fi
        # The others take no variables along to other nodes only if told so; Open MPI only if told which.
        for name in ${AIFTRAIN_PASS-} "${!AIFTRAIN_@}" OMP_NUM_THREADS; do
            if [[ -v $name ]]; then options+=(-x "$name"); fi
        done
        if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi # as this script does
        ;;
    slurm*) # Debian's is slurm-wlm
        options+=("--nodes=$((AIFTRAIN_RANKS / AIFTRAIN_RANKS_PER_NODE))" "--ntasks-per-node=$AIFTRAIN_RANKS_PER_NODE")
        options+=(--kill-on-bad-exit=1)
        if ((${#hosts[@]})); then options+=("--nodelist=$(named)"); fi
        ;;
    *)
        options+=(-ppn "$AIFTRAIN_RANKS_PER_NODE")
        if ((${#hosts[@]})); then options+=(-hosts "$(named)"); fi
        # Intel MPI would bind each rank to its share of the cores, whichever its device is near to, and older ones take
        # ranks a node from the job alone.
        if [[ -z ${!I_MPI_PIN*} ]]; then export I_MPI_PIN=off; fi
        export I_MPI_JOB_RESPECT_PROCESS_PLACEMENT="${I_MPI_JOB_RESPECT_PROCESS_PLACEMENT:-off}"
        ;;
esac
asked=
running=
# mpiexec takes SIGTERM and SIGINT for an order to kill, and passes SIGUSR1 on: the ranks save and leave.
trap 'asked=1; if [[ $running ]]; then kill -USR1 "$running"; fi' TERM INT HUP USR1
setsid "${mpiexec[@]}" "${options[@]}" "${program[@]}" -m "${AIFTRAIN_MODULE:-aiftrain.train}" "$AIFTRAIN_RUN" &
running=$!
while kill -0 "$running" 2>/dev/null; do wait "$running" || true; done # a signal ends a wait, not mpiexec
wait "$running" && code=0 || code=$?
if ((code == 0)) && grep -qs '"exit_code": 75' "$logs/rank-00000.exit.json"; then code=75; fi # saved, and wants to go on
case $code in
    0 | 2 | 75) exit "$code" ;;
    *) exit $((asked && code > 128 ? 75 : 1)) ;; # killed in the start, before there was anything to save
esac
