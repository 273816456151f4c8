#!/usr/bin/env bash
# What frozen matrices still had to learn: a run as published, then on from its best adapter for as long
# again, once with every matrix thawed, once with the vectors alone, which is the control.
#
#   scripts/thawed.sh DATA RUNS        MODEL=minilm TASKS="cola mrpc stsb rte" SEEDS="0 1 2 3 4" JOBS=1
#
# RUNS keeps the runs; what is done stays done. The scores go to standard output as CSV: the best dev score of
# each run by the task's metric. AFLORA names another program than target/release/aflora.
set -euo pipefail
cd "$(dirname "$0")/.."

data=${1:?which folder holds the data?}
runs=${2:?where do the runs go?}
model=${MODEL:-minilm}
export LD_LIBRARY_PATH="${LIBTORCH:-$PWD/.libtorch/torch}/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
mkdir -p "$runs"

# TASK SEED: the three runs, one after the other.
three() {
    local from="$runs/$model-$1-$2"
    once() {
        local run_dir=$1
        shift
        [ -f "$run_dir/metrics.json" ] || "${AFLORA:-target/release/aflora}" run configs/experiment.yaml "$@" \
            run_dir="$run_dir" >> "$run_dir.log" 2>&1
    }
    local settings=(task="$1" model="$model" seed="$2" lr=5e-3 data="$data")
    once "$from-published" "${settings[@]}" method=aflora
    once "$from-thawed" "${settings[@]}" method=aflora-trainable adapter="$from-published/adapter"
    once "$from-control" "${settings[@]}" method=aflora-frozen adapter="$from-published/adapter"
}
export -f three
export runs model data
for task in ${TASKS:-cola mrpc stsb rte}; do
    for seed in ${SEEDS:-0 1 2 3 4}; do echo "$task $seed"; done
done | xargs -L 1 -P "${JOBS:-1}" bash -euc 'three "$0" "$1"' >&2

python3 - "$runs" "$model" <<'END'
import json, pathlib, sys

print("model,task,seed,run,metric,best,best_epoch,parameters_at_start")
for path in sorted(pathlib.Path(sys.argv[1]).glob(f"{sys.argv[2]}-*/metrics.json")):
    model_and_task, seed, run = path.parent.name.rsplit("-", 2)
    found = json.loads(path.read_text())
    metric = found["selection"]
    best = found["best"]
    print(sys.argv[2], model_and_task[len(sys.argv[2]) + 1:], seed, run, metric, best["metrics"][metric], best["epoch"],
          found["parameters"]["at_start"], sep=",")
END
