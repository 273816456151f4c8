#!/usr/bin/env bash
# SHA-256 of what short runs leave that is made of numbers (the adapter of the best epoch, every
# loss, the steps of freezing): equal before and after a change that must not touch a number, on
# one machine with one libtorch.
#
#   scripts/fingerprints.sh quick > before     some seconds: every method, both kinds of model that write
#   scripts/fingerprints.sh full DATA > before the default run and MRPC on MiniLM, too; DATA holds MRPC/
#   scripts/fingerprints.sh quick | diff before -
#
# AFLORA names another program than target/release/aflora.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-quick}
data=${2:-}
aflora=${AFLORA:-target/release/aflora}
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
export LD_LIBRARY_PATH="${LIBTORCH:-$PWD/.libtorch/torch}/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# The run NAME with further settings: its digest.
fingerprint() {
    local name=$1
    shift
    if ! "$aflora" run configs/experiment.yaml run_dir="$runs/$name" seed=42 threads=2 "$@" > "$runs/log" 2>&1; then
        echo "$name failed:" >&2
        tail -n 5 "$runs/log" >&2
        return 1
    fi
    digest "$name"
}

digest() {
    local run=$runs/$1
    echo "$1 $({
        cat "$run"/adapter/*.safetensors
        cut -d , -f 1,4 "$run/freeze.csv"
        grep -o '"[a-z_]*loss":[^,}]*' "$run/events.jsonl"
    } | sha256sum | cut -c 1-16)"
}

# The run NAME, interrupted a few times as if from the keyboard, and taken up again.
interrupted() {
    local name=$1
    shift
    for pause in 2 3 4 600; do
        timeout --preserve-status --signal INT "$pause" "$aflora" run configs/experiment.yaml \
            run_dir="$runs/$name" seed=42 threads=2 "$@" > "$runs/log" 2>&1 || true
    done
    digest "$name"
}

methods="aflora aflora-frozen aflora-trainable aflora-rank lora elora vera adalora sora"
own="full bitfit head"
small=(task=reviews model=tiny-deberta limit=256 eval_limit=32 epochs=4 max_length=24 batch_size=16)
for method in $methods $own; do
    fingerprint "deberta-$method" "${small[@]}" method="$method" precision=fp32
done
fingerprint deberta-bf16 "${small[@]}" method=aflora precision=bf16
interrupted deberta-resumed "${small[@]}" method=aflora precision=fp32 limit=2048 checkpoint_every="20 steps"
for model in tiny-bart tiny-llama; do
    fingerprint "lines-$model" task=lines model=$model precision=fp32
done
if [ "$what" = full ]; then
    fingerprint default
    fingerprint default-fp32 precision=fp32 limit=640 epochs=4
    for method in $methods $own; do
        fingerprint "mrpc-$method" task=mrpc model=minilm data="$data" limit=640 method="$method" precision=fp32
    done
    fingerprint mrpc-bf16 task=mrpc model=minilm data="$data" limit=640 precision=bf16
fi
