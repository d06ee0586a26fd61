#!/usr/bin/env bash
# All recipes of Figure 3 and both controls, several at a time, each in a process of its own.
#   scripts/figure3.sh PARALLEL [key=value ...]
#   scripts/figure3.sh 2 scale=cpu data=tiny_imagenet data.root=FOLDER machine.threads=1
# Stopped or killed, it continues where it was when started again. A run that fails does not stop the
# others; the exit status says whether one did.
set -u
if [ $# -lt 1 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
    echo "usage: scripts/figure3.sh PARALLEL [key=value ...]" >&2
    exit 2
fi
parallel=$1
shift
# The longest first, so that the last to finish is a short one.
printf '%s\n' inception bn_x5 bn_x30 bn_x5_sigmoid inception_x5 bn_baseline inception_sigmoid |
    xargs -P "$parallel" -I{} "${PYTHON:-python}" -m bn_inception train recipe={} run.resume=auto "$@"
