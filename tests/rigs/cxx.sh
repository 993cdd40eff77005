#!/bin/bash
# c++ for DeepSpeed's async_io and pin_memory in tests: all files that read torch's headers are compiled as one, and
# nothing is kept for debuggers. The first object holds them all, the others nothing.
set -eu
shopt -s nullglob
[[ " $* " =~ \ -DTORCH_EXTENSION_NAME=(async_io|pin_memory)\ .*\ -c\  ]] || exec c++ "$@"

flags=()
while (($#)); do
    case $1 in
        -MMD) ;;
        -MF) shift ;;
        -c) source=$2 && shift ;;
        -o) object=$2 && shift ;;
        *) flags+=("$1") ;;
    esac
    shift
done
object_of() { exec c++ "${flags[@]}" -g0 "$@" -o "$object"; }

folder=${source%/*}
[[ $folder != */common ]] || object_of -c "$source"  # without torch
mapfile -t sources < <(sed -n "s|^build .*: compile $folder/||p" build.ninja)
[[ $source == "$folder/${sources[0]}" ]] || object_of -x c++ -c /dev/null

# Headers that are read once only: DeepSpeed's do not see to that themselves. The sources find them beside them.
mkdir -p together
for header in "$folder"/../common/*.h "$folder"/*.h; do
    { echo '#pragma once' && cat "$header"; } >"together/${header##*/}"
done
cp "${sources[@]/#/$folder/}" together
printf '#include "%s"\n' "${sources[@]}" >together/all.cpp
object_of -Itogether -c together/all.cpp
