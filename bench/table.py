"""Results of bench/compare.sh as a table of means and standard deviations over seeds.

    python bench/table.py results.jsonl
    python bench/table.py --line RUN/metrics.json LABEL     one run of ours as a line of results.jsonl
"""

import json
import statistics
import sys


def line(path, label):
    m = json.load(open(path))
    metrics = m["best"]["metrics"]
    return {
        "side": "aflora", "task": m["task"], "method": label, "seed": m["seed"], "accuracy": metrics["accuracy"],
        "f1": metrics.get("f1"), "epoch": m["best"]["epoch"], "parameters": round(m["parameters"]["time_average"]),
        "ms_per_step": 1e3 * m["seconds"]["training"] / m["steps"],
    }


def table(path):
    groups = {}
    for row in map(json.loads, open(path)):
        groups.setdefault((row["task"], row["method"], row["side"]), []).append(row)
    print("| task | method | | seeds | accuracy | F1 | parameters, time average |\n|---|---|---|---|---|---|---|")
    for (task, method, side), found in sorted(groups.items()):
        def cell(key):
            values = [r[key] for r in found if r.get(key) is not None]
            if not values or (key == "f1" and task != "mrpc"):
                return "–"
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            return f"{statistics.mean(values):.4f} ± {spread:.4f}"
        parameters = round(statistics.mean(r["parameters"] for r in found))
        print(f"| {task} | {method} | {side} | {len(found)} | {cell('accuracy')} | {cell('f1')} | {parameters:,} |")


if __name__ == "__main__":
    if sys.argv[1] == "--line":
        print(json.dumps(line(sys.argv[2], sys.argv[3])))
    else:
        table(sys.argv[1])
