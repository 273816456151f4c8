"""A trace of the bench `step` as one line of JSON: milliseconds of kernels a step, by groups and by kernel.

    cargo bench -p aflora-run --bench step -- bench/shapes/minilm.json bert lora:8 32 128 profile=trace.json
    python bench/kernel_times.py trace.json model=minilm method=lora batch=32 length=128

KEY=VALUE goes into the line as it is. A kernel that begins before the one before it ends counts from there. Which of our kernels
belongs to which group is read from crates/aflora-cuda/kernels; softmaxes of libtorch's count as attention. --top says how many kernels are listed, --steps how many steps the
trace has.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

KERNELS = Path(__file__).parent.parent / "crates/aflora-cuda/kernels"

# Our sources by group; the rest of them is "all else".
SOURCES = {
    "low-rank paths": ["low_rank", "low_rank_tiled", "feed_forward", "feed_forward_tiled", "path_sums", "wide_path"],
    "attention": ["disentangled", "disentangled_tiled", "heads"],
    "update": ["adamw", "joint_norm", "order", "scores"],
}

# What libtorch's are called.
NAMES = [
    ("attention", r"flash|fmha|sdpa|softmax"),
    ("products", r"gemm|nvjet|cutlass|cublas|splitK|gemv"),
]


def groups_of_ours():
    """The group of each kernel of ours, by name; of one whose name stands in two groups, none."""
    found = {}
    for source in sorted(KERNELS.glob("*.cu*")):
        group = next((group for group, sources in SOURCES.items() if source.stem in sources), "all else")
        for line in source.read_text().splitlines():
            if line.startswith('extern "C" __global__'):
                # The first that has arguments with types, behind what says how much of a GPU it takes.
                name = re.search(r"(\w+)\((?:const |float|int|long|T\b|u32|bool)", line)
                found.setdefault(name.group(1), set()).add(group)
    return {name: groups.pop() for name, groups in found.items() if len(groups) == 1}


def group_of(name, ours):
    if name in ours:
        return ours[name]
    return next((group for group, pattern in NAMES if re.search(pattern, name, re.IGNORECASE)), "all else")


def short(name):
    """Without return type, namespaces of libtorch's and arguments."""
    return re.sub(r"^void |at::native::|\(anonymous namespace\)::|at_cuda_detail::", "", name)[:60]


def main():
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("trace", type=Path)
    about.add_argument("facts", nargs="*", metavar="KEY=VALUE")
    about.add_argument("--steps", type=int, default=3)
    about.add_argument("--top", type=int, default=12)
    given = about.parse_intermixed_args()
    if not given.trace.is_file():
        about.error(f"there is no file {given.trace}")
    trace = json.loads(given.trace.read_text())
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    kinds = ("kernel", "gpu_memcpy", "gpu_memset")
    events = sorted((e for e in events if e.get("cat") in kinds and e.get("ph") == "X"), key=lambda e: e["ts"])
    if not events:
        about.error(f"{given.trace} has no kernels")
    ours = groups_of_ours()
    groups, kernels, end = Counter(), Counter(), events[0]["ts"]
    for event in events:
        own_end = event["ts"] + event["dur"]
        share = max(0.0, own_end - max(event["ts"], end)) / 1e3 / given.steps
        end = max(end, own_end)
        groups[group_of(event["name"], ours)] += share
        kernels[short(event["name"])] += share
    facts = dict(fact.split("=", 1) for fact in given.facts)
    line = {key: int(value) if value.isdigit() else value for key, value in facts.items()}
    line["span_ms"] = round((end - events[0]["ts"]) / 1e3 / given.steps, 3)
    line["kernels_ms"] = round(sum(groups.values()), 3)
    line["launches"] = round(len(events) / given.steps, 1)
    line["groups"] = {group: round(ms, 3) for group, ms in groups.most_common()}
    line["kernels"] = {name: round(ms, 3) for name, ms in kernels.most_common(given.top)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
