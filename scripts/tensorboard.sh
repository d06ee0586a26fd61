#!/usr/bin/env bash
# TensorBoard on the runs in a folder, each under its own name; further options go to TensorBoard.
#   scripts/tensorboard.sh [FOLDER] [option ...]
#   scripts/tensorboard.sh outputs --port 6006
# A run that began later is shown after a restart.
set -eu
folder=${1:-outputs}
[ $# -eq 0 ] || shift
spec=
for events in "$folder"/*/tensorboard; do
    name=$(basename "$(dirname "$events")")
    [ ! -d "$events" ] || spec+=,$name:$events
done
if [ -z "$spec" ] || [[ $folder == *[,:]* ]]; then
    echo "$folder: no run in it, or , or : in its name; give the folder of your runs, such as outputs" >&2
    exit 2
fi
exec "${PYTHON:-python}" -m tensorboard.main --logdir_spec "${spec#,}" "$@"
