#!/bin/bash
# DeepSpeed's own runner: on this machine or, over pdsh and ssh, on the nodes that AIFTRAIN_HOSTFILE names, one a line.
# Reads AIFTRAIN_*; by hand, in a run folder, AIFTRAIN_RANKS is enough.
set -euo pipefail
: "${AIFTRAIN_RUN:=$PWD}" "${AIFTRAIN_WORKDIR:=$PWD}" "${AIFTRAIN_RANKS:?how many ranks there are to be}"
hosts=("$(hostname)")
if [[ -n ${AIFTRAIN_HOSTFILE-} ]]; then mapfile -t hosts < <(awk 'NF && !/^#/ { print $1 }' "$AIFTRAIN_HOSTFILE"); fi
: "${hosts[0]:?"$AIFTRAIN_HOSTFILE names no host"}" "${AIFTRAIN_RANKS_PER_NODE:=$((AIFTRAIN_RANKS / ${#hosts[@]}))}"
shopt -s nullglob
attempts=("$AIFTRAIN_RUN"/logs/attempt-[0-9]*)
last=$(printf '%s\n' 0 "${attempts[@]##*/attempt-}" | grep -x '[0-9]*' | sort -n | tail -n 1)
: "${AIFTRAIN_ATTEMPT:=$((10#$last + 1))}" "${OMP_NUM_THREADS:=$(($(nproc) / AIFTRAIN_RANKS_PER_NODE))}"
if ((OMP_NUM_THREADS < 1)); then OMP_NUM_THREADS=1; fi
logs=$AIFTRAIN_RUN/logs/attempt-$(printf '%03d' "$AIFTRAIN_ATTEMPT")
mkdir -p -- "$logs"
declare -a program runner
eval "program=(${AIFTRAIN_PROGRAM:-python3}) runner=(${AIFTRAIN_DEEPSPEED:-deepspeed})" # lists in shell quotes
printf "%s slots=$AIFTRAIN_RANKS_PER_NODE\n" "${hosts[@]}" >"$logs/hostfile"
# ssh brings no variables along, and DeepSpeed passes only some on, badly quoted: each rank reads them from a file.
{
    echo '#!/bin/bash'
    for name in PATH LD_LIBRARY_PATH ${AIFTRAIN_PASS-} "${!AIFTRAIN_@}" OMP_NUM_THREADS; do
        if [[ -v $name ]]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
    done
    printf 'cd -- %q\nexec' "$AIFTRAIN_WORKDIR"
    printf ' %q' "${program[@]}" -m "${AIFTRAIN_MODULE:-aiftrain.train}" "$AIFTRAIN_RUN"
} >"$logs/rank.sh"
chmod +x -- "$logs/rank.sh"
port=${MASTER_PORT:-$((10000 + $$ % 20000))} # DeepSpeed's own is 29500 for everyone
taken() { grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$port")" /proc/net/tcp /proc/net/tcp6; }
while [[ -z ${MASTER_PORT-} ]] && taken; do ((port += 1)); done
options=("--hostfile=$logs/hostfile" "--master_port=$port" --no_ssh_check --no_python --no_local_rank)
if ((${#hosts[@]} == 1)) && [[ ${hosts[0]} =~ ^(localhost|127\..*|"$(hostname)")$ ]]; then
    options+=("--master_addr=${MASTER_ADDR:-127.0.0.1}" "$logs/rank.sh")
else # the remote shell reads paths once more, and pdsh their per cent signs
    path=$(printf '%q' "$logs/rank.sh") python=$(printf '%q' "$(type -P "${runner[0]}")")
    # A node that does not answer, or lacks something, would keep the others waiting for it.
    reach() {
        local code=0
        ssh -n -o BatchMode=yes -o ConnectTimeout=15 "$1" "[ -x $path ] || exit 3; [ -x $python ] || exit 4" || code=$?
        case $code in
            0) return ;;
            3) echo "$1 does not see $logs: the run folder has to lie on a file system of all nodes" ;;
            4) echo "$1 has no $python, which starts its ranks: it has to be there under that name" ;;
            *) echo "$1 does not answer to ssh without a password; launcher=slurm and launcher=mpi need no ssh in a job" ;;
        esac >&2
        return 1
    }
    for host in "${hosts[@]}"; do reach "$host" & done
    for _ in "${hosts[@]}"; do wait -n || lost=1; done
    if [[ ${lost-} ]]; then exit 1; fi
    # Without a terminal there, ranks would outlive a launcher that is killed here.
    export PDSH_SSH_ARGS_APPEND="-tt -o BatchMode=yes -o ConnectTimeout=15 ${PDSH_SSH_ARGS_APPEND-}"
    options+=("--master_addr=${MASTER_ADDR:-${hosts[0]}}" --launcher=pdsh --force_multi "${path//%/%%}")
    for name in "${!PYTHON@}" "${!NCCL@}" "${!UCX@}" "${!MLFLOW@}" "${!MV2@}"; do unset "$name"; done # it would pass these
fi
cd / # DeepSpeed tells the nodes to enter this folder, and does not quote its name
running=
asked=
# Of a signal the runner dies alone, or kills its ranks after 30 s. Rank 0 is asked, and asks the others.
# shellcheck disable=SC2329 # the trap calls it
ask() {
    asked=1
    until [[ -s $logs/rank-00000.start.json ]]; do kill -0 "$running" 2>/dev/null && sleep 0.1 || return 0; done
    [[ $(<"$logs/rank-00000.start.json") =~ \"host\":\ \"([^\"]*)\".*\"pid\":\ ([0-9]+) ]] || return 0
    case ${BASH_REMATCH[1]} in
        "$(hostname)") kill -TERM "${BASH_REMATCH[2]}" 2>/dev/null || true ;;
        *) ssh -n "${BASH_REMATCH[1]}" kill -TERM "${BASH_REMATCH[2]}" || true ;;
    esac
}
setsid "${runner[@]}" "${options[@]}" &
running=$!
trap ask TERM INT HUP USR1
while kill -0 "$running" 2>/dev/null; do wait "$running" || true; done # a signal ends a wait, not the runner
wait "$running" && code=0 || code=$?
# A launcher that a signal killed counts as a success with DeepSpeed: only what the ranks say does.
ended=$({ grep -lE '"exit_code": (0|75)\b' "$logs"/rank-*.exit.json /dev/null || true; } | wc -l)
if ((code == 0 && ended < AIFTRAIN_RANKS)); then code=1; fi
if ((code == 0)) && grep -qs '"exit_code": 75' "$logs/rank-00000.exit.json"; then code=75; fi # saved, and wants to go on
case $code in
    0 | 2 | 75) exit "$code" ;;
    *) exit $((asked && code > 128 ? 75 : 1)) ;;
esac
