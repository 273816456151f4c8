"""What bitsandbytes' own 4 and 8 bits cost a model that writes, before any training: the numbers in docs/quantised.md.

    python bench/perplexity.py MODEL --texts gsm8k/test.jsonl [--rows 24]

MODEL is a GGUF file, or a folder of Hugging Face's. Needs torch, transformers, bitsandbytes, and gguf for such a file. The
linear layers of the blocks are rounded to bf16, or quantised and restored, and computed with in single precision on the CPU;
embeddings, norms and the language head stay as they are. A text is a question, a line feed, and its answer.
"""

import argparse
import json
import math
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def nf4(weight, block=64, nested=False):
    codes, state = bnb.quantize_4bit(weight, blocksize=block, quant_type="nf4", compress_statistics=nested)
    return bnb.dequantize_4bit(codes, state).reshape(weight.shape)


def int8(weight):
    scales = weight.abs().amax(1, keepdim=True)
    return torch.round(weight * 127 / scales) * scales / 127


def perplexity(model, texts):
    loss = tokens = 0
    with torch.no_grad():
        for ids in texts:
            count = ids.shape[1] - 1
            loss += model(input_ids=ids, labels=ids).loss.item() * count
            tokens += count
    return math.exp(loss / tokens)


def main():
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("model", type=Path)
    about.add_argument("--texts", type=Path, required=True)
    about.add_argument("--rows", type=int, default=24)
    about.add_argument("--threads", type=int, default=1)
    args = about.parse_args()
    torch.set_num_threads(args.threads)
    is_file = args.model.suffix == ".gguf"
    folder, named = (args.model.parent, {"gguf_file": args.model.name}) if is_file else (args.model, {})
    tokenizer = AutoTokenizer.from_pretrained(folder, **named)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **named).eval()
    rows = [json.loads(line) for line in args.texts.read_text(encoding="utf8").splitlines()[: args.rows]]
    texts = [torch.tensor([tokenizer(f"{row['question']}\n{row['answer']}").input_ids[:384]]) for row in rows]

    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    whole = {name: layer.weight.data.clone() for name, layer in layers.items()}
    ends = [f"layers.{block}." for block in (0, model.config.num_hidden_layers - 1)]
    ways = {
        "bf16": (lambda w: w.bfloat16().float(), []),
        "nf4": (nf4, []),
        "nf4_nested": (lambda w: nf4(w, nested=True), []),
        "int8": (int8, []),
        "nf4, blocks of 32": (lambda w: nf4(w, block=32), []),
        "nf4, first and last block whole": (nf4, ends),
        "nf4, first block whole": (nf4, ends[:1]),
    }
    reference = None
    for way, (restored, kept) in ways.items():
        off = size = 0
        for name, layer in layers.items():
            weight = whole[name]
            layer.weight.data = weight if any(part in name for part in kept) else restored(weight.contiguous())
            off += (layer.weight.data - weight).square().sum().item()
            size += weight.square().sum().item()
        found = perplexity(model, texts)
        reference = reference or found
        line = {"way": way, "perplexity": found, "more": found / reference - 1, "error": math.sqrt(off / size)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
