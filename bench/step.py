"""Training steps and whole runs, ours and the peers', in turn on one machine.

    python bench/step.py SUITE [SUITE …] [--bars] [--only TEXT] [--out FILE.jsonl] [--device auto|cpu|cuda] [--steps 30] [--ours-only]
                         [--ours target/…/step] [--aflora target/…/aflora] [--python python3] [--models FOLDER --glue FOLDER]

Every line of a suite (bench/suites.py) is a process of its own, and nothing else runs meanwhile: the bench `step` of aflora-run, which
cargo builds if --ours does not say where it is, or bench/peft_step.py under --python, which needs torch, transformers and peft, and for
some lines liger-kernel, flashdeberta, disentangled-flash or bitsandbytes: without one, a line says so and the next is made. Shapes are
those of bench/shapes: random weights and tokens, no padding, dropout on. The suite `runs` needs --aflora (or target/release/aflora),
--models with minilm/ and mpnet-base/, and --glue with MRPC/. What torch.compile makes is made beforehand, all at once, and is in the
caches when a line is measured; with --cold it is not. Writes a line of JSON a process, the machine's first, and prints the tables.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import table
from processes import Server, apart, spawn, together
from suites import BACKBONES, SUITES

HERE = Path(__file__).resolve().parent
PACKAGES = "torch transformers peft accelerate triton liger-kernel flashdeberta disentangled-flash bitsandbytes".split()


def built():
    """The bench `step`, built by cargo."""
    command = ["cargo", "bench", "-p", "aflora-run", "--bench", "step", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("target", {}).get("name") == "step" and m.get("executable")]
    return found[-1]


def words(line, args):
    """What bench/peft_step.py or the bench `step` is called with."""
    shape, sizes = str(args.shapes / f"{line.model}.json"), [str(line.batch), str(line.length)]
    if line.side == "peft":
        return [shape, line.method, *sizes, *line.options, "--steps", str(args.steps), "--device", args.device]
    backbone = BACKBONES[line.model] + ("+checkpointing" if "checkpointing" in line.options else "")
    options = [option for option in line.options if option != "checkpointing"]
    return [shape, backbone, line.method, *sizes, f"device={args.device}", f"steps={args.steps}", *options]


def machine(args):
    def said(*words, **more):
        try:
            return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **more).stdout.strip()
        except OSError:
            return ""

    versions = f"""
import importlib.metadata as m, json
found = dict()
for name in {PACKAGES}:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))"""
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    return {
        "machine": platform.machine(), "cpu": cpu[0] if cpu else "", "cores": len(os.sched_getaffinity(0)),
        "gpu": said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").replace("\n", "; "),
        "python": platform.python_version(), "packages": {} if args.ours_only else json.loads(said(args.python, "-c", versions, env=apart()) or "{}"),
        "commit": args.commit or said("git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD"), "date": time.strftime("%Y-%m-%d"),
        "seed": 1, "command": " ".join(sys.argv),
    }


def compile_beforehand(lines, args):
    """Fills the caches of torch.compile, for all lines at once: a measurement then waits for the tracing alone. Gives whether it did.

    Not where products are chosen by their time, and what was chosen for other kernels is forgotten: they shared the GPU."""
    asked = argparse.Namespace(**{**vars(args), "steps": 0})
    commands = [[args.python, str(HERE / "peft_step.py"), *words(line, asked)] for line in lines if line.compiles_alike()]
    if args.cold or len(commands) < 2:
        return False
    print(f"compiling {len(commands)} models", file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = together([spawn(command, apart()) for command in commands], args.limit)
    for command, (code, _, error) in zip(commands, done):
        if code:
            print(f"    not compiled beforehand: {' '.join(command[2:])}: {last(error)}", file=sys.stderr)
    for chosen in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.best_config"):
        chosen.unlink()
    print(f"    {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return True


def last(text):
    """The last line that speaks of an error, or the last."""
    lines = text.strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1]).strip()[:300]


def whole_run(line, args, folder):
    """A run from its command to its metrics: what it printed or wrote, and the seconds that it took."""
    (task,) = line.options
    rates = {"epochs": args.epochs, "lr": 1e-3, "seed": 1}
    if line.side == "run-peft":
        command = [args.python, str(HERE / "peft_glue.py"), "--model", f"{args.models}/{line.model}", "--glue", str(args.glue),
                   "--task", task, "--method", "lora", "--rank", "8", "--precision", "bf16"]
        command += [word for key, value in rates.items() for word in (f"--{key}", str(value))]
        env = apart()
    else:
        command = [args.aflora, "run", str(HERE.parent / "configs/experiment.yaml"), f"task={task}", f"model={line.model}", "method=lora",
                   f"data={args.models}", f"run_dir={folder}/run", "batch_size=32", "max_length=128", "head_lr=2e-3"]
        command += [f"{key}={value}" for key, value in rates.items()]
        env = {**os.environ, "AFLORA_DATA": str(args.glue)}
    started = time.perf_counter()
    ((code, out, error),) = together([spawn(command, env)], args.limit)
    seconds = time.perf_counter() - started
    if code:
        return code, out, error
    row = table.line(f"{folder}/run/metrics.json", "lora") if line.side == "run-ours" else json.loads(out.splitlines()[-1])
    # The time of the whole process, not what it says itself.
    return code, json.dumps({**row, "whole_s": seconds}), error


def one(line, args, server):
    """The exit code, output and error output of one line."""
    if line.side.startswith("run-"):
        with tempfile.TemporaryDirectory() as folder:
            return whole_run(line, args, folder)
    if server and line.side == "peft" and line.ranks == 1 and not any(option.startswith("nf4") for option in line.options):
        return server.run(words(line, args), args.limit)
    command, env = (
        ([args.python, str(HERE / "peft_step.py")], apart()) if line.side == "peft" else ([args.ours], dict(os.environ)))
    done = together([spawn(command + words(line, args), {**env, **rank}) for rank in ranks(line.ranks)], args.limit, one_for_all=True)
    # Those that were ended because another failed have a code below zero.
    return max(done, key=lambda result: result[0]) if any(code > 0 for code, _, _ in done) else min(done, key=lambda result: result[0])


def ranks(number):
    """torchrun's variables for each process; none for one alone."""
    if number == 1:
        return [{}]
    port = str(20000 + os.getpid() % 10000)
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number),
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} for rank in range(number)]


def measure(args):
    lines = [line for suite in args.suites for line in SUITES[suite]]
    lines = [line for line in lines if (line.bar or not args.bars) and not (args.ours_only and "peft" in line.side)]
    lines = [line for line in lines if not args.only or any(text in str(line) for text in args.only)]
    rows = []
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(args.out, "w")) if args.out else None
        server, cached = None, False

        def keep(row):
            rows.append(row)
            if out:
                print(json.dumps(row), file=out, flush=True)

        keep(machine(args))
        if any(line.side == "peft" for line in lines):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
            cached = compile_beforehand(lines, args)
            server = stack.enter_context(Server([args.python, str(HERE / "peft_step.py"), "--serve"], apart()))
            if args.device != "cpu" and rows[0]["gpu"]:
                code, found, error = server.run(["--rate"], args.limit)
                keep(json.loads(found) if code == 0 else {"side": "card", "failed": last(error)})
                # What imports ask of the GPU can forbid it to all that is forked.
                server = server if code == 0 else None
        for number, line in enumerate(lines, 1):
            print(f"{number}/{len(lines)} {line}", file=sys.stderr, flush=True)
            code, found, error = one(line, args, server)
            row = {"model": line.model, "options": " ".join(line.options)}
            found = [text for text in found.splitlines() if text.startswith("{")]
            if code or not found:
                row |= {"side": line.side, "method": line.method, "batch": line.batch, "length": line.length, "ranks": line.ranks,
                        "failed": last(error)}
                print(f"    failed: {row['failed']}", file=sys.stderr)
            else:
                row = {**json.loads(found[-1]), **row}
                if cached and line.compiles_alike():
                    row["caches"] = "warm"
                print(f"    {row['ms']:.2f} ms" if "ms" in row else f"    {row['whole_s']:.1f} s", file=sys.stderr, flush=True)
            keep(row)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("suites", nargs="+", metavar="SUITE", choices=SUITES, help=", ".join(SUITES))
    p.add_argument("--bars", action="store_true", help="only the lines that bars need")
    p.add_argument("--out", help="a file for lines of JSON; bench/table.py prints its tables again")
    p.add_argument("--device", default="auto")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--epochs", type=int, default=8, help="of whole runs")
    p.add_argument("--only", action="append", metavar="TEXT", help="only the lines with TEXT in them, as they are shown: llama-7b; may be given again")
    p.add_argument("--ours-only", action="store_true", help="leave the peers' lines out")
    p.add_argument("--cold", action="store_true", help="compile within each line")
    p.add_argument("--limit", type=int, default=300, help="seconds for a line")
    p.add_argument("--cores", type=int, help="use so many of this machine's cores")
    p.add_argument("--ours", help="the built bench `step`")
    p.add_argument("--aflora", default=str(HERE.parent / "target/release/aflora"))
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--shapes", type=Path, default=HERE / "shapes")
    p.add_argument("--models", type=Path, default=HERE.parent / ".assets")
    p.add_argument("--glue", type=Path, default=HERE.parent / "data/glue")
    p.add_argument("--commit", help="what was measured, where there is no git")
    args = p.parse_args()
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    if not args.ours and any(line.side == "ours" for suite in args.suites for line in SUITES[suite]):
        args.ours = built()
    table.tables(measure(args))


if __name__ == "__main__":
    main()
