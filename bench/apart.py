"""Logits of a merged model beside other ways to hold the same run: the numbers in docs/quantised.md.

    aflora merge RUN exact --as f32; aflora merge RUN half --as bf16; aflora export RUN adapter --base codes
    python bench/apart.py exact --pairs glue/MRPC/dev.tsv --model half --adapter codes adapter --adapter .assets/minilm adapter

Needs torch, transformers, peft, and bitsandbytes for a base in codes. Single precision on the CPU; --bf16-codes leaves it to
bitsandbytes, which multiplies codes of four bits in bf16 where the processor has AVX512-BF16.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def opened(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model, tokenizer, pairs):
    parts = []
    with torch.no_grad():
        for at in range(0, len(pairs), 16):
            firsts, seconds = zip(*pairs[at : at + 16])
            batch = tokenizer(list(firsts), list(seconds), truncation=True, max_length=128, padding=True, return_tensors="pt")
            parts.append(model(**batch).logits)
    return torch.cat(parts)


def main():
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("exact")
    about.add_argument("--pairs", type=Path, required=True)
    about.add_argument("--rows", type=int, default=64)
    about.add_argument("--model", action="append", default=[], metavar="FOLDER")
    about.add_argument("--adapter", action="append", default=[], nargs=2, metavar=("BASE", "FOLDER"))
    about.add_argument("--bf16-codes", action="store_true")
    args = about.parse_args()
    torch.set_num_threads(1)
    lines = args.pairs.read_text(encoding="utf-8-sig").split("\n")[1 : args.rows + 1]
    pairs = [line.rstrip("\r").split("\t")[3:5] for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(args.exact)
    exact = logits(opened(args.exact), tokenizer, pairs)

    def tell(name, model):
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu") and not args.bf16_codes:
                module.support_avx512bf16_for_cpu = False
        found = logits(model, tokenizer, pairs)
        off = (found - exact).abs()
        other = (found.argmax(1) != exact.argmax(1)).sum().item()
        line = {"way": name, "largest": off.max().item(), "mean": off.mean().item(), "other_class": other}
        print(json.dumps(line | {"largest_logit": exact.abs().max().item()}), flush=True)

    for folder in args.model:
        tell(folder, opened(folder))
    for base, folder in args.adapter:
        tell(f"{base} + {folder}", PeftModel.from_pretrained(opened(base), folder).eval())


if __name__ == "__main__":
    main()
