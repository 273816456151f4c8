"""One training step, ours and Hugging Face PEFT's, in turn on one machine.

    python bench/step.py SUITE [SUITE …] [--out FILE.jsonl] [--device auto|cpu|cuda] [--steps 30] [--ours-only]
                         [--ours target/…/step] [--python python3]
    python bench/step.py --table FILE.jsonl

Every line of a suite is a process of its own: the bench `step` of aflora-run, which cargo builds if --ours does not say where it
is, or bench/peft_step.py under --python, which needs torch, transformers and peft. Shapes are those of bench/shapes: random weights
and tokens, no padding, dropout on. Writes a line of JSON a process, the machine's first, and prints the table of bench/README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BACKBONES = {"deberta-v3-base": "deberta-v2", "minilm": "bert", "bart-large": "bart", "llama-7b": "llama"}


def ours(model, method, batch, length, *options):
    return ("ours", model, method, batch, length, list(options))


def peft(model, method, batch, length, mode="eager", precision="bf16", *options):
    return ("peft", model, method, batch, length, ["--mode", mode, "--precision", precision, *options])


D, M, B, L = BACKBONES
SUITES = {
    # The bars: DeBERTaV3-base's shape, AFLoRA beside its kin and PEFT's LoRA in all its modes.
    "deberta": [
        ours(D, "aflora", 32, 128), peft(D, "lora", 32, 128),
        ours(D, "aflora-frozen", 32, 128), ours(D, "lora", 32, 128), ours(D, "elora", 32, 128),
        ours(D, "aflora-never", 32, 128), peft(D, "lora", 32, 128, "reduce-overhead"),
        ours(D, "aflora", 32, 128, "graphs=off"), ours(D, "aflora", 32, 128), ours(D, "aflora-frozen", 32, 128),
        ours(D, "aflora", 4, 128), peft(D, "lora", 4, 128),
        ours(D, "aflora", 64, 128), peft(D, "lora", 64, 128),
        ours(D, "aflora", 16, 256), peft(D, "lora", 16, 256),
        peft(D, "lora", 32, 128, "compile"), ours(D, "aflora", 32, 128, "precision=fp32"),
        ours(D, "aflora", 32, 128, "precision=tf32"), peft(D, "lora", 32, 128, "eager", "fp32"),
    ],
    "models": [
        ours(M, "aflora", 32, 128), peft(M, "lora", 32, 128), ours(M, "lora", 32, 128),
        ours(B, "aflora-gsm8k:16", 8, 512), ours(B, "lora:16", 8, 512), peft(B, "lora:16", 8, 512),
        ours(L, "aflora-gsm8k:32", 8, 256), ours(L, "lora:32", 8, 256), peft(L, "lora:32", 8, 256),
    ],
    "checkpointing": [
        ours(L, "lora:32", 8, 256, "checkpointing"), peft(L, "lora:32", 8, 256, "eager", "bf16", "--checkpointing"),
    ],
    # Ours alone: how a step grows.
    "scaling": [
        *[ours(D, "aflora", batch, 128) for batch in (1, 4, 16, 32, 64, 128)],
        *[ours(D, "aflora", 16, length) for length in (32, 64, 128, 256, 512)],
        *[ours(D, f"aflora:{rank}", 32, 128) for rank in (1, 2, 4, 8, 16, 64)],
        *[ours(D, "aflora", 32, 128, f"modules={modules}") for modules in (
            r".*query_proj", r".*(query|key|value)_proj", r".*(intermediate|output)\.dense", ".*")],
    ],
    # What scores and tests of freezing cost, and what is left once everything is frozen: means, not medians, hold a test every tenth step.
    "freezing": [ours(D, method, 32, 128) for method in ("aflora-never", "aflora", "aflora-tests", "aflora-frozen")] * 2,
    "ranks": [ours(D, f"aflora:{rank}", 32, 128) for rank in (1, 2, 4, 8)],
    "cpu": [
        entry
        for precision in ("fp32", "bf16")
        for entry in (
            ours(M, "aflora", 32, 64, f"precision={precision}"), peft(M, "lora", 32, 64, "eager", precision),
            ours(M, "lora", 32, 64, f"precision={precision}"), ours(M, "aflora-frozen", 32, 64, f"precision={precision}"),
        )
    ] + [peft(M, "lora", 32, 64, "eager", "autocast"), peft(M, "vera", 32, 64, "eager", "fp32"), ours(M, "elora", 32, 64, "precision=fp32")],
}


def built():
    """The bench `step`, built by cargo."""
    command = ["cargo", "bench", "-p", "aflora-run", "--bench", "step", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("target", {}).get("name") == "step" and m.get("executable")]
    return found[-1]


def command(entry, args):
    side, model, method, batch, length, options = entry
    shape = str(HERE / "shapes" / f"{model}.json")
    if side == "peft":
        device = ["--device", args.device]
        return [args.python, str(HERE / "peft_step.py"), shape, method, str(batch), str(length), *options,
                "--steps", str(args.steps), *device]
    backbone = BACKBONES[model]
    if "checkpointing" in options:
        backbone, options = backbone + "+checkpointing", [o for o in options if o != "checkpointing"]
    return [args.ours, shape, backbone, method, str(batch), str(length), f"device={args.device}", f"steps={args.steps}", *options]


def machine(args):
    def said(*words):
        try:
            return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
        except OSError:
            return ""

    versions = "import torch, transformers, peft; print(torch.__version__, transformers.__version__, peft.__version__)"
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    return {
        "machine": platform.machine(), "cpu": cpu[0] if cpu else "", "cores": len(os.sched_getaffinity(0)),
        "gpu": said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "torch, transformers, peft": "" if args.ours_only else said(args.python, "-c", versions),
        "commit": said("git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD"), "date": time.strftime("%Y-%m-%d"),
        "seed": 1,
    }


def measure(args):
    out = open(args.out, "w") if args.out else None
    rows = []
    entries = [entry for suite in args.suites for entry in SUITES[suite] if entry[0] == "ours" or not args.ours_only]

    def keep(row):
        rows.append(row)
        if out:
            print(json.dumps(row), file=out, flush=True)

    keep(machine(args))
    for number, entry in enumerate(entries, 1):
        side, model, method, batch, length, options = entry
        print(f"{number}/{len(entries)} {side} {model} {method} {batch} x {length} {' '.join(options)}", file=sys.stderr, flush=True)
        # PEFT's torch must not find the libtorch that ours is linked to.
        env = dict(os.environ)
        if side == "peft":
            paths = env.get("LD_LIBRARY_PATH", "").split(":")
            env["LD_LIBRARY_PATH"] = ":".join(path for path in paths if not os.path.exists(os.path.join(path, "libtorch_cpu.so")))
        done = subprocess.run(command(entry, args), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        found = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not found:
            print(f"    failed: {(done.stderr.strip().splitlines() or ['no output'])[-1][:300]}", file=sys.stderr)
            continue
        row = json.loads(found[-1])
        keep({**row, "model": model, "options": " ".join(options)})
        print(f"    {row['ms']:.2f} ms", file=sys.stderr)
    return rows


def table(rows):
    machine, *rows = rows
    print(", ".join(f"{key} {value}" for key, value in machine.items() if value != ""), end="\n\n")
    precisions = {"Float": "fp32", "TF32": "tf32", "BFloat16": "bf16 base, fp32 adapters", "bf16": "all bf16", "autocast": "bf16 autocast"}
    # Beside PEFT's LoRA, operation by operation and in the same precision (ELoRA: beside its VeRA where that was measured).
    def alike(r):
        return r["model"], r["batch"], r["length"], r["precision"] in ("BFloat16", "bf16"), r["mode"] == "checkpointing"

    eager = [r for r in rows if r["side"] == "peft" and r["mode"] in ("eager", "checkpointing") and r["precision"] in ("bf16", "fp32")]
    peers = {(r["method"].split(":")[0], alike(r)): r for r in reversed(eager)}

    modules = len({r.get("modules") for r in rows if r["side"] == "aflora" and r["model"] == "deberta-v3-base"}) > 1
    print(f"| | mode | precision | shape |{' layers |' if modules else ''} ms a step | of PEFT's | first step after, s | memory, GB | of it tensors |")
    print("|---|---|---|---|---|---|---|---|---|" + ("---|" if modules else ""))
    for r in rows:
        peer = peers.get(("vera" if r["method"] == "elora" else "lora", alike(r))) or peers.get(("lora", alike(r)))
        ratio = f"{r['ms'] / peer['ms']:.3f}" if peer and r["side"] == "aflora" else "–"
        tensors = r.get("peak_tensors")
        pattern = "".join(f" {o.split('=', 1)[1]}".replace("|", "\\|") for o in r["options"].split() if o.startswith("modules="))
        layers = f" {r.get('modules', '–')}{pattern} |" if modules else ""
        print(f"| {r['side']} {r['method']} | {r['mode']} | {precisions.get(r['precision'], r['precision'])} | {r['model']}, {r['batch']} × {r['length']} |{layers}"
              f" {r['ms']:.2f} | {ratio} | {r['first_step_s']:.1f} | {r['peak_memory'] / 1e9:.2f} | {f'{tensors / 1e9:.2f}' if tensors else '–'} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    p.add_argument("--out", help="a file for lines of JSON")
    p.add_argument("--table", metavar="FILE", help="only print the table of such a file")
    p.add_argument("--device", default="auto")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--ours-only", action="store_true", help="leave the lines of PEFT out")
    p.add_argument("--ours", help="the built bench `step`")
    p.add_argument("--python", default=sys.executable)
    args = p.parse_args()
    if args.table:
        return table([json.loads(line) for line in open(args.table)])
    unknown = [suite for suite in args.suites if suite not in SUITES]
    if unknown or not args.suites:
        p.error(f"suites are {', '.join(SUITES)}" + (f"; there is no `{unknown[0]}`" if unknown else ""))
    args.ours = args.ours or built()
    table(measure(args))


if __name__ == "__main__":
    main()
