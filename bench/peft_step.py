"""One training step of a model with Hugging Face PEFT: the other side of aflora-run's bench `step`.

    python bench/peft_step.py CONFIG.json METHOD BATCH LENGTH [--precision fp32|bf16|autocast|nf4|nf4_nested]
                              [--mode eager|compile|reduce-overhead|max-autotune|max-autotune-no-cudagraphs]
                              [--kernels liger|flashdeberta|disentangled] [--checkpointing] [--spread] [--steps 30] [--device auto]
    python bench/peft_step.py --rate
    python bench/peft_step.py --serve

Random weights and tokens, no padding, dropout on; a step is forward, loss, backward, clipping and AdamW (fused on a GPU).
METHOD is lora (r = 8) or vera (r = 1024); lora:32 has another rank. Models that write have the loss on every token (of an
encoder-decoder: on a target of a quarter of LENGTH). With torchrun's variables it is one of several processes under DDP, or with
--spread under FSDP2: BATCH is each one's, and the first prints. Prints one line of JSON, as the bench `step` of aflora-run does;
with --steps 0 nothing: what is compiled lies in the caches then. --rate prints what the card reaches on a large bf16 product.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

STARTED = time.perf_counter()

import torch
from peers import KERNELS, quantise, random_model, spread, with_adapters
from transformers import AutoConfig

WARM_UP = 10
COMPILED = ["compile", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


def arguments(words):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("config")
    p.add_argument("method")
    p.add_argument("batch", type=int)
    p.add_argument("length", type=int)
    p.add_argument("--precision", choices=["fp32", "bf16", "autocast", "nf4", "nf4_nested"], default="fp32")
    p.add_argument("--mode", choices=["eager", *COMPILED], default="eager")
    p.add_argument("--kernels", choices=KERNELS)
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--spread", action="store_true")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--device", default="auto")
    return p.parse_args(words)


def join(device):
    """The number of this process and of all, by torchrun's variables, and the device of this one."""
    if "RANK" not in os.environ:
        return 0, 1, device
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size(), device


def build(args, config, device, ranks):
    small = args.precision in ("bf16", "nf4", "nf4_nested")
    model = random_model(config, torch.bfloat16 if small else torch.float32, device, args.kernels)
    if args.precision.startswith("nf4"):
        model = quantise(model, args.precision == "nf4_nested")
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = with_adapters(model, args.method).to(device).train()
    if small:
        model = model.bfloat16()
    if args.spread:
        return spread(model)
    if ranks > 1:
        own = [torch.cuda.current_device()] if device == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=own, gradient_as_bucket_view=True)
    return model


def tokens_for(config, args, device):
    def tokens(n):
        return torch.randint(0, min(config.vocab_size, 30000), (args.batch, n), device=device)

    ids = tokens(args.length)
    labels = {"bart": lambda: tokens(args.length // 4), "llama": lambda: ids, "gpt2": lambda: ids}.get(
        config.model_type, lambda: torch.arange(args.batch, device=device) % 2
    )()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def measure(args, started):
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    rank, ranks, device = join(device)
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(args.config, num_labels=2)
    model = build(args, config, device, ranks)
    # The weights are the same for all, tokens and dropout are not.
    torch.manual_seed(1 + rank)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    trained = [weight for _, weight in named]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1, fused=device == "cuda")
    batch = tokens_for(config, args, device)
    run = model if args.mode == "eager" else torch.compile(model, mode=None if args.mode == "compile" else args.mode)

    def step(check=False):
        with torch.autocast(device, torch.bfloat16, enabled=args.precision == "autocast"):
            loss = run(**batch).loss
        loss.backward()
        passed = [name for name, weight in named if check and weight.grad is None]
        if passed:
            sys.exit(f"{len(passed)} of {len(named)} trained tensors get no gradient, {passed[0]} first")
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    step(check=True)
    first = time.perf_counter() - started
    if args.steps == 0:
        return step()
    times = []
    for _ in range(WARM_UP - 1 + args.steps):
        begun = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - begun))
    peak = (
        torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    measured = times[WARM_UP - 1 :]
    if rank == 0:
        print(json.dumps({
            "side": "peft", "model": config.model_type, "method": args.method, "kernels": args.kernels,
            "parallel": "fsdp2" if args.spread else "ddp" if ranks > 1 else None, "ranks": ranks,
            "mode": "checkpointing" if args.checkpointing else args.mode, "precision": args.precision, "batch": args.batch,
            "length": args.length, "steps": args.steps, "ms": statistics.median(measured), "mean_ms": statistics.mean(measured),
            "first_step_s": first, "peak_memory": peak,
            "peak_tensors": torch.cuda.max_memory_allocated() if device == "cuda" else None,
            "trainable": sum(w.numel() for w in trained),
        }), flush=True)
    if ranks > 1:
        torch.distributed.destroy_process_group()


def rate():
    """The median of twenty products of 8192 x 8192 matrices in bf16."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    print(json.dumps({"side": "card", "bf16_tflops": 2 * 8192**3 / statistics.median(times[5:]) / 1e9}), flush=True)


def serve(imported):
    """Measures what lines of JSON on the standard input ask for, each in a process forked from this one: what takes longest of an
    eager measurement are the imports. `imported` seconds are added to the time to the first step."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            # Errors go where the line says, so that the last of them can be told.
            asked = json.loads(line)
            os.dup2(os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(os.open(asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            try:
                main(asked["words"], time.perf_counter() - imported)
                code = 0
            except SystemExit as end:
                print(end.code, file=sys.stderr)
                code = 1
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def main(words, started):
    if words == ["--rate"]:
        return rate()
    measure(arguments(words), started)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve(time.perf_counter() - STARTED)
    else:
        main(sys.argv[1:], STARTED)
