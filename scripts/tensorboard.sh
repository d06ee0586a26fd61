#!/usr/bin/env bash
# TensorBoard on the runs in a folder, each under its own name; further options go to TensorBoard.
#   scripts/tensorboard.sh [FOLDER] [option ...]
#   scripts/tensorboard.sh outputs --port 6006
# It reads links in FOLDER/.tensorboard. A run that began later is shown after a restart.
set -eu
folder=${1:-outputs}
[ $# -eq 0 ] || shift
if ! compgen -G "$folder/*/tensorboard" >/dev/null; then
    echo "$folder: no run in it; give the folder of your runs, such as outputs" >&2
    exit 2
fi
mkdir -p "$folder/.tensorboard"
find "$folder/.tensorboard" -maxdepth 1 -type l -delete
for events in "$folder"/*/tensorboard; do
    name=$(basename "$(dirname "$events")")
    ln -s "../$name/tensorboard" "$folder/.tensorboard/$name"
done
exec "${PYTHON:-python}" -m tensorboard.main --logdir "$folder/.tensorboard" "$@"
