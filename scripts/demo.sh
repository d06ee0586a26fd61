#!/usr/bin/env bash
# The effect in minutes: plain Inception and BN-x5 on the embedded images, side by side with one core each,
# and what was seen in one sentence. Stopped, it continues where it was when started again.
set -eu -o pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
# Through cat, because two progress bars do not fit on one terminal: lines do.
printf '%s\n' inception bn_x5 |
    OMP_NUM_THREADS=1 xargs -P 2 -I{} "$python" -m bn_inception train recipe={} scale=demo data=synthetic \
        machine=cpu machine.threads=1 data.workers=0 run.seed=16 run.resume=auto 2>&1 | cat
runs=(outputs/inception-demo-synthetic-seed16 outputs/bn_x5-demo-synthetic-seed16)
"$python" -m bn_inception compare "${runs[@]}" output=outputs/demo >/dev/null
echo
"$python" experiments/demo.py sentence "${runs[@]}"
echo "The report with table and curves: outputs/demo/report.html"
