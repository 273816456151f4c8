"""Hugging Face PEFT on GLUE with the settings of an aflora run: the other side of the comparison in bench/README.md.

    python bench/peft_glue.py --model FOLDER --glue FOLDER --task mrpc --method lora --seed 0 [--lr 1e-3 ...]

Needs torch, transformers and peft. The update is that of `aflora run`: AdamW (decay 0.1, none on the head's bias), gradients
clipped to 0.1, warm-up 6% and linear decay, batches padded to their longest, dropout as in the base, single precision. The
best epoch by the task's metric is printed as one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, VeraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

TARGETS = ["query", "key", "value", "intermediate.dense", "output.dense"]
TASKS = {
    # file columns of the texts and of the label, labels, whether F1 decides
    "mrpc": ("MRPC", 3, 4, 0, ["0", "1"], True),
    "rte": ("RTE", 1, 2, 3, ["entailment", "not_entailment"], False),
}


def rows(folder, split, task):
    name, a, b, y, labels, _ = TASKS[task]
    lines = (Path(folder) / name / f"{split}.tsv").read_text(encoding="utf8").split("\n")[1:]
    cells = [line.rstrip("\r").split("\t") for line in lines if line]
    return [(c[a], c[b], labels.index(c[y])) for c in cells]


def scores(predicted, expected):
    right = sum(p == e for p, e in zip(predicted, expected)) / len(expected)
    tp = sum(p == e == 1 for p, e in zip(predicted, expected))
    wrong = sum(p != e for p, e in zip(predicted, expected))
    return {"accuracy": right, "f1": 2 * tp / (2 * tp + wrong) if tp else 0.0}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--glue", required=True)
    p.add_argument("--task", choices=TASKS, required=True)
    p.add_argument("--method", choices=["lora", "vera"], required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--max-length", type=int, default=128)
    p.add_argument("--lr", type=float, required=True)
    p.add_argument("--head-lr", type=float, default=2e-3)
    p.add_argument("--rank", type=int, required=True)
    p.add_argument("--alpha", type=float, default=16)
    args = p.parse_args()

    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2, dtype=torch.float32)
    common = dict(task_type=TaskType.SEQ_CLS, target_modules=TARGETS)
    config = (
        LoraConfig(r=args.rank, lora_alpha=args.alpha, **common)
        if args.method == "lora"
        else VeraConfig(r=args.rank, d_initial=0.1, **common)
    )
    model = get_peft_model(base, config).to(device)

    def encode(data):
        out = tokenizer([r[0] for r in data], [r[1] for r in data], truncation="longest_first", max_length=args.max_length)
        keys = ("input_ids", "attention_mask", "token_type_ids")
        return [{**{k: out[k][i] for k in keys}, "labels": data[i][2]} for i in range(len(data))]

    def collate(batch):
        longest = max(len(r["input_ids"]) for r in batch)
        pad = lambda r, k: r[k][:longest] + [0] * (longest - len(r[k]))
        out = {k: torch.tensor([pad(r, k) for r in batch]) for k in ("input_ids", "attention_mask", "token_type_ids")}
        return {k: v.to(device) for k, v in {**out, "labels": torch.tensor([r["labels"] for r in batch])}.items()}

    train, dev = encode(rows(args.glue, "train", args.task)), encode(rows(args.glue, "dev", args.task))
    named = [(n, w) for n, w in model.named_parameters() if w.requires_grad]
    head = [(n, w) for n, w in named if "classifier" in n]
    groups = [
        {"params": [w for n, w in named if "classifier" not in n], "lr": args.lr, "weight_decay": 0.1},
        {"params": [w for n, w in head if w.dim() > 1], "lr": args.head_lr, "weight_decay": 0.1},
        {"params": [w for n, w in head if w.dim() == 1], "lr": args.head_lr, "weight_decay": 0.0},
    ]
    steps = -(-len(train) // args.batch_size) * args.epochs
    optimizer = torch.optim.AdamW(groups)
    scheduler = get_linear_schedule_with_warmup(optimizer, int(0.06 * steps), steps)
    clipped = [w for _, w in named]
    generator = torch.Generator().manual_seed(args.seed)
    decides = "f1" if TASKS[args.task][5] else "accuracy"
    best, seconds = None, 0.0
    for epoch in range(args.epochs):
        model.train()
        order = torch.randperm(len(train), generator=generator).tolist()
        started = time.perf_counter()
        for i in range(0, len(order), args.batch_size):
            loss = model(**collate([train[j] for j in order[i : i + args.batch_size]])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(clipped, 0.1)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - started
        model.eval()
        predicted = []
        with torch.no_grad():
            for i in range(0, len(dev), 64):
                predicted += model(**collate(dev[i : i + 64])).logits.argmax(-1).tolist()
        found = scores(predicted, [r["labels"] for r in dev])
        if best is None or found[decides] > best[decides]:
            best = {**found, "epoch": epoch + 1}
    trained = sum(w.numel() for n, w in named if "classifier" not in n)
    print(json.dumps({"side": "peft", "task": args.task, "method": args.method, "seed": args.seed, **best,
                      "parameters": trained, "ms_per_step": 1e3 * seconds / steps}))


if __name__ == "__main__":
    main()
