"""Writing text with Hugging Face transformers: the other side of aflora-run's bench `generate`.

    python bench/peft_generate.py CONFIG.json METHOD TEXTS PROMPT NEW [--precision fp32|bf16] [--mode dynamic|static|compile]
                                  [--rounds 3] [--slots N] [--sample] [--device auto]

Random weights and prompts of PROMPT tokens, no padding; nothing ends a text, so every one has NEW tokens. METHOD is none, or lora (r = 8;
lora:32 has another rank), not merged. The mode is the cache's: dynamic; static, never compiled; or static with the step compiled as
`generate` does it by itself on a GPU (torch.compile, mode reduce-overhead, so recorded as CUDA graphs). Texts beyond --slots are written
in further batches. Prints one line of JSON, as the bench `generate` of aflora-run does: tokens a second and seconds of the median round
after one for warming up, in which the step is compiled.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, CompileConfig

TARGETS = {"llama": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("config")
    p.add_argument("method")
    p.add_argument("texts", type=int)
    p.add_argument("prompt", type=int)
    p.add_argument("new", type=int)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    p.add_argument("--mode", choices=["dynamic", "static", "compile"], default="compile")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--slots", type=int)
    p.add_argument("--sample", action="store_true")
    p.add_argument("--device", default="auto")
    args = p.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    slots = args.slots or args.texts
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(args.config)
    config.use_cache, config.eos_token_id = True, None
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    method, _, rank = args.method.partition(":")
    if method == "lora":
        lora = LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=TARGETS[config.model_type], r=int(rank or 8), lora_alpha=16)
        model = get_peft_model(model, lora)
    elif method != "none":
        p.error(f"there is no method {method}")
    model = model.to(device).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    settings = dict(max_new_tokens=args.new, min_new_tokens=None, do_sample=args.sample, use_cache=True)
    if args.sample:
        settings["top_k"] = 50
    if args.mode != "dynamic":
        settings["cache_implementation"] = "static"
        if args.mode == "static":
            settings["disable_compile"] = True
        elif device == "cpu":
            # Else only a GPU's step is compiled.
            settings["compile_config"] = CompileConfig(mode="default")
            settings["compile_config"]._compile_all_devices = True
    ids = torch.randint(0, min(config.vocab_size, 30000), (args.texts, args.prompt), device=device)

    def round():
        begun, tokens = time.perf_counter(), 0
        for batch in ids.split(slots):
            with torch.inference_mode():
                out = model.generate(input_ids=batch, attention_mask=torch.ones_like(batch), **settings)
            tokens += out[:, args.prompt :].numel()
        if device == "cuda":
            torch.cuda.synchronize()
        return tokens, time.perf_counter() - begun

    _, first = round()
    rounds = [round() for _ in range(args.rounds)]
    (tokens, *_), seconds = zip(*rounds)
    median = statistics.median(seconds)
    peak = (
        torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(json.dumps({
        "side": "transformers", "model": config.model_type, "method": args.method, "mode": args.mode, "precision": args.precision,
        "texts": args.texts, "slots": slots, "prompt": args.prompt, "new": args.new, "sample": args.sample,
        "tokens_per_s": tokens / median, "s": median, "rounds_s": sorted(seconds), "first_round_s": first,
        "ms_a_token": 1e3 * median * slots / tokens, "peak_memory": peak,
        "peak_tensors": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }))


if __name__ == "__main__":
    main()
