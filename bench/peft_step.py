"""One training step of a model with Hugging Face PEFT: the other side of aflora-run's bench `step`.

    python bench/peft_step.py CONFIG.json METHOD BATCH LENGTH [--precision fp32|bf16|autocast] [--mode eager|compile|reduce-overhead]
                              [--steps 30] [--device auto]

Random weights and tokens, no padding, dropout on; a step is forward, loss, backward, clipping and AdamW (fused on a GPU).
METHOD is lora (r = 8), vera (r = 1024) or full; lora:32 has another rank. Models that write have the loss on every token (of an
encoder-decoder: on a target of a quarter of LENGTH). Prints one line of JSON, as the bench `step` of aflora-run does.
"""

import argparse
import json
import resource
import statistics
import time

STARTED = time.perf_counter()

import torch
from peft import LoraConfig, TaskType, VeraConfig, get_peft_model
from transformers import (
    AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
)

WARM_UP = 10
TARGETS = {
    "deberta-v2": ["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"],
    "bert": ["query", "key", "value", "intermediate.dense", "output.dense"],
    "llama": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    "bart": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
KINDS = {
    "llama": (AutoModelForCausalLM, TaskType.CAUSAL_LM), "bart": (AutoModelForSeq2SeqLM, TaskType.SEQ_2_SEQ_LM),
}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("config")
    p.add_argument("method")
    p.add_argument("batch", type=int)
    p.add_argument("length", type=int)
    p.add_argument("--precision", choices=["fp32", "bf16", "autocast"], default="fp32")
    p.add_argument("--mode", choices=["eager", "compile", "reduce-overhead"], default="eager")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--device", default="auto")
    args = p.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(args.config, num_labels=2)
    method, _, rank = args.method.partition(":")
    kind, task = KINDS.get(config.model_type, (AutoModelForSequenceClassification, TaskType.SEQ_CLS))
    # Made where it is needed and as it is needed: a large model would not fit twice.
    with torch.device(device):
        dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
        model = kind.from_config(config, dtype=dtype)
    common = dict(task_type=task, target_modules=TARGETS[config.model_type])
    if args.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=int(rank or 8), lora_alpha=16, **common))
    elif method == "vera":
        model = get_peft_model(model, VeraConfig(r=int(rank or 1024), **common))
    elif method != "full":
        p.error(f"there is no method {method}")
    model = model.to(device).train()
    if args.precision == "bf16":
        model = model.bfloat16()
    trained = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1, fused=device == "cuda")
    def tokens(n):
        return torch.randint(0, min(config.vocab_size, 30000), (args.batch, n), device=device)

    ids = tokens(args.length)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if config.model_type == "bart":
        batch["labels"] = tokens(args.length // 4)
    elif config.model_type == "llama":
        batch["labels"] = ids
    else:
        batch["labels"] = torch.arange(args.batch, device=device) % 2
    run = model if args.mode == "eager" else torch.compile(model, mode=None if args.mode == "compile" else args.mode)

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=args.precision == "autocast"):
            loss = run(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    first = time.perf_counter() - STARTED
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
    print(json.dumps({
        "side": "peft", "model": config.model_type, "method": args.method,
        "mode": "checkpointing" if args.checkpointing else args.mode, "precision": args.precision, "batch": args.batch,
        "length": args.length, "steps": args.steps, "ms": statistics.median(times[WARM_UP - 1 :]), "first_step_s": first,
        "peak_memory": peak, "peak_tensors": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "trainable": sum(w.numel() for w in trained),
    }))


if __name__ == "__main__":
    main()
