"""The tables of bench/README.md, from lines of bench/step.py or bench/compare.sh.

    python bench/table.py results.jsonl
    python bench/table.py --line RUN/metrics.json LABEL     one run of ours as a line of results.jsonl
"""

import argparse
import json
import statistics
from pathlib import Path

SHAPES = Path(__file__).resolve().parent / "shapes"
PRECISIONS = {
    "Float": "fp32", "TF32": "tf32", "BFloat16": "bf16 base, fp32 adapters", "bf16": "all bf16", "autocast": "bf16 autocast",
}


def line(path, label):
    m = json.load(open(path))
    metrics = m["best"]["metrics"]
    return {
        "side": "aflora", "task": m["task"], "method": label, "seed": m["seed"], "accuracy": metrics["accuracy"],
        "f1": metrics.get("f1"), "epoch": m["best"]["epoch"], "parameters": round(m["parameters"]["time_average"]),
        "ms_per_step": 1e3 * m["seconds"]["training"] / m["steps"],
    }


def scores(rows):
    """Means and standard deviations over seeds."""
    groups = {}
    for row in rows:
        groups.setdefault((row["task"], row.get("model", ""), row["method"], row["side"]), []).append(row)
    print("| task | method | | seeds | accuracy | F1 | parameters, time average | seconds, all in all |\n|---|---|---|---|---|---|---|---|")
    for (task, model, method, side), found in sorted(groups.items()):
        def cell(key, form="{:.4f} ± {:.4f}"):
            values = [r[key] for r in found if r.get(key) is not None]
            if not values or (key == "f1" and task != "mrpc"):
                return "–"
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            return form.format(statistics.mean(values), spread)
        parameters = round(statistics.mean(r["parameters"] for r in found))
        print(f"| {task} | {' '.join(filter(None, (model, method)))} | {side} | {len(found)} | {cell('accuracy')} | {cell('f1')} | {parameters:,} |"
              f" {cell('whole_s', '{:.1f}')} |")


def place(row):
    """What two steps must have in common to be compared."""
    form = "nf4" if row["precision"].startswith("nf4") else "bf16" if row["precision"] in ("BFloat16", "bf16") else row["precision"]
    form = PRECISIONS.get(form, form)
    return row["model"], row["batch"], row["length"], form, "checkpointing" in row.get("options", ""), row.get("ranks", 1)


def steps(rows):
    """Steps, each beside PEFT's LoRA operation by operation (ELoRA: beside its VeRA where that was measured), and beside the best peer."""
    plain, best = {}, {}
    for r in rows:
        if r["side"] == "peft":
            if r["mode"] in ("eager", "checkpointing") and not r.get("kernels"):
                plain.setdefault((r["method"].split(":")[0], place(r)), r)
            if "lora" in r["method"]:
                best[place(r)] = min(best.get(place(r), r), r, key=lambda r: r["ms"])

    modules = len({r.get("modules") for r in rows if r["side"] == "aflora" and r["model"] == "deberta-v3-base"}) > 1
    print(f"| | mode | precision | shape |{' layers |' if modules else ''} ms a step | of PEFT's | of the best peer's | first step after, s | memory, GB | of it tensors |")
    print("|---|---|---|---|---|---|---|---|---|---|" + ("---|" if modules else ""))
    for r in rows:
        eager = plain.get(("vera" if r["method"] == "elora" else "lora", place(r))) or plain.get(("lora", place(r)))
        peer = best.get(place(r))

        def ratio(other):
            return f"{r['ms'] / other['ms']:.3f}" if other and r["side"] == "aflora" else "–"

        tensors = r.get("peak_tensors")
        pattern = "".join(f" {o.split('=', 1)[1]}".replace("|", "\\|") for o in r.get("options", "").split() if o.startswith("modules="))
        layers = f" {r.get('modules', '–')}{pattern} |" if modules else ""
        mode = ", ".join(filter(None, (r["mode"], r.get("kernels"), r.get("parallel"), r.get("shard") and "spread")))
        gpus = f", {r['ranks']} GPUs" if r.get("ranks", 1) > 1 else ""
        print(f"| {r['side']} {r['method']} | {mode} | {PRECISIONS.get(r['precision'], r['precision'])} | {r['model']}, {r['batch']} × {r['length']}{gpus} |{layers}"
              f" {r['ms']:.2f} | {ratio(eager)} | {ratio(peer)} | {r['first_step_s']:.1f}{' (cached)' if r.get('caches') == 'warm' else ''} |"
              f" {r['peak_memory'] / 1e9:.2f} | {f'{tensors / 1e9:.2f}' if tensors else '–'} |")


def rates(rows, tflops):
    """How much of what the card reaches on a large product goes into LLaMA's products with frozen weights."""
    print(f"\nA product of 8192 × 8192 matrices in bf16 reaches {tflops:.0f} TFLOP/s. Of that, LLaMA's products with frozen weights (4 operations"
          " a weight and token; of checkpointed blocks 6) are:\n\n| | shape | share |\n|---|---|---|")
    for r in rows:
        if r["model"].startswith("llama-"):
            c = json.loads((SHAPES / f"{r['model']}.json").read_text())
            width, wide = c["hidden_size"], c["intermediate_size"]
            weights = c["num_hidden_layers"] * (4 * width**2 + 3 * width * wide) + c["vocab_size"] * width
            operations = (6 if "checkpointing" in r["options"] else 4) * weights * r["batch"] * r["length"]
            print(f"| {r['side']} {r['method']} {r['options']} | {r['model']}, {r['batch']} × {r['length']} | {operations / r['ms'] / 1e9 / tflops:.2f} |")


def scaling(rows):
    """What several GPUs do beside one, each with as many rows as the one."""
    for r in rows:
        alone = [a for a in rows if a.get("ranks") == 1 and {**r, "ranks": 1, "parallel": None}.items() >= {k: a.get(k) for k in (
            "side", "model", "method", "batch", "length", "mode", "precision", "ranks", "parallel")}.items()]
        if r.get("ranks", 1) > 1 and alone:
            print(f"- {r['side']} {r['method']}, {r['model']}: {r['ranks']} GPUs do {r['ranks'] * alone[0]['ms'] / r['ms']:.2f} × the rows of one in the same time")


def tables(rows):
    for row in rows:
        if "machine" in row:
            print(", ".join(f"{key} {value}" for key, value in row.items() if value not in ("", {})), end="\n\n")
    whole = ("side", "model", "method", "mode", "precision", "batch", "length", "ms", "first_step_s", "peak_memory")
    measured = [r for r in rows if all(r.get(key) is not None for key in whole)]
    runs = [r for r in rows if all(key in r for key in ("side", "task", "method", "accuracy", "parameters"))]
    others = sum("machine" not in r and "failed" not in r and "bf16_tflops" not in r for r in rows) - len(measured) - len(runs)
    if others:
        print(f"{others} lines are neither of a step whose median was measured nor of a run.\n")
    if measured:
        steps(measured)
        print()
        scaling(measured)
    for row in rows:
        if "bf16_tflops" in row and any(r["model"].startswith("llama-") for r in measured):
            rates(measured, row["bf16_tflops"])
    if runs:
        print()
        scores(runs)
    failed = [r for r in rows if "failed" in r]
    if failed:
        print("\nNot measured:\n")
    for r in failed:
        print(f"- {r['side']} {r.get('model', '')} {r.get('method', '')} {r.get('batch', '')} × {r.get('length', '')} {r.get('options', '')}: {r['failed']}")


def main():
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("results", nargs="?", type=Path)
    about.add_argument("--line", nargs=2, metavar=("METRICS", "LABEL"))
    given = about.parse_args()
    if given.line:
        print(json.dumps(line(*given.line)))
    elif given.results and given.results.is_file():
        tables([json.loads(row) for row in given.results.read_text().splitlines() if row.strip()])
    else:
        about.error(f"there is no file {given.results}" if given.results else "which results?")


if __name__ == "__main__":
    main()
