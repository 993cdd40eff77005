#!/bin/bash
# c++ for DeepSpeed's async_io in tests: torch's headers are read once for all of its files, and nothing is kept for
# debuggers. PRECOMPILED is a folder for these headers. What depends on what is not noted, as the folder may go.
set -eu
[[ " $* " == *" -DTORCH_EXTENSION_NAME=async_io "*" -c "* ]] || exec c++ "$@"

flags=() files=()
while (($#)); do
    case $1 in
        -MMD) ;;
        -MF) shift ;;
        -c | -o) files+=("$1" "$2") && shift ;;
        *) flags+=("$1") ;;
    esac
    shift
done

header=$PRECOMPILED/headers.h
exec {lock}>"$PRECOMPILED/lock"
flock "$lock"  # ninja starts several at once
if [[ ! -e $header.gch ]]; then
    echo '#include <torch/extension.h>' >"$header"
    c++ "${flags[@]}" -g0 -x c++-header -o "$header.gch" "$header"
fi
exec {lock}>&-
exec c++ -include "$header" "${flags[@]}" -g0 "${files[@]}"
