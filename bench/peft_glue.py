"""Hugging Face PEFT under transformers' Trainer on GLUE, with the settings of an aflora run: the other side of whole runs.

    python bench/peft_glue.py --model FOLDER --glue FOLDER --task mrpc --method lora --rank 8 --lr 1e-3 [--seed 0] [--precision fp32|bf16]

The update is that of `aflora run`: AdamW (decay 0.1, none on the head's biases), gradients clipped to 0.1, warm-up 6% and linear
decay, batches padded to their longest, dropout as in the base. With --precision bf16 the base is held in bf16, and adapters and head
in fp32. The best epoch by the task's metric is printed as one line of JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from peers import with_adapters
from transformers import (
    AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, get_linear_schedule_with_warmup
)
from transformers.utils import logging

TASKS = {
    # file columns of the texts and of the label, labels, the metric that decides
    "mrpc": ("MRPC", 3, 4, 0, ["0", "1"], "f1"),
    "rte": ("RTE", 1, 2, 3, ["entailment", "not_entailment"], "accuracy"),
}


def rows(folder, split, task):
    name, a, b, y, labels, _ = TASKS[task]
    lines = (Path(folder) / name / f"{split}.tsv").read_text(encoding="utf8").split("\n")[1:]
    cells = [line.rstrip("\r").split("\t") for line in lines if line]
    return [c[a] for c in cells], [c[b] for c in cells], [labels.index(c[y]) for c in cells]


def scores(prediction):
    predicted, expected = prediction.predictions.argmax(-1), prediction.label_ids
    both, wrong = int(((predicted == 1) & (expected == 1)).sum()), int((predicted != expected).sum())
    return {"accuracy": 1 - wrong / len(expected), "f1": 2 * both / (2 * both + wrong) if both else 0.0}


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
    p.add_argument("--max-steps", type=int, default=-1)
    p.add_argument("--lr", type=float, required=True)
    p.add_argument("--head-lr", type=float, default=2e-3)
    p.add_argument("--rank", type=int, required=True)
    p.add_argument("--alpha", type=float, default=16)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    args = p.parse_args()

    logging.set_verbosity_error()
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    small = args.precision == "bf16"
    base = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2, dtype=torch.bfloat16 if small else torch.float32)
    own = {"lora_alpha": args.alpha} if args.method == "lora" else {"d_initial": 0.1}
    model = with_adapters(base, f"{args.method}:{args.rank}", **own)
    named = [(n, w) for n, w in model.named_parameters() if w.requires_grad]
    for _, weight in named:
        weight.data = weight.data.float()

    def encode(split):
        first, second, labels = rows(args.glue, split, args.task)
        out = tokenizer(first, second, truncation="longest_first", max_length=args.max_length)
        return [{**{key: out[key][i] for key in out}, "labels": labels[i]} for i in range(len(labels))]

    train, dev = encode("train"), encode("dev")
    head = [(n, w) for n, w in named if "classifier" in n]
    adapters = [w for n, w in named if "classifier" not in n]
    groups = [
        {"params": adapters, "lr": args.lr, "weight_decay": 0.1},
        {"params": [w for _, w in head if w.dim() > 1], "lr": args.head_lr, "weight_decay": 0.1},
        {"params": [w for _, w in head if w.dim() == 1], "lr": args.head_lr, "weight_decay": 0.0},
    ]
    steps = -(-len(train) // args.batch_size) * args.epochs
    optimizer = torch.optim.AdamW(groups, fused=torch.cuda.is_available())
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.06 * steps), steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, processing_class=tokenizer, train_dataset=train, eval_dataset=dev, compute_metrics=scores,
            data_collator=DataCollatorWithPadding(tokenizer), optimizers=(optimizer, schedule),
            args=TrainingArguments(
                folder, seed=args.seed, num_train_epochs=args.epochs, per_device_train_batch_size=args.batch_size, max_steps=args.max_steps,
                per_device_eval_batch_size=64, max_grad_norm=0.1, bf16=small, eval_strategy="epoch", save_strategy="epoch", save_total_limit=1,
                use_cpu=not torch.cuda.is_available(),
                logging_strategy="no", report_to=[], disable_tqdm=True),
        )
        done = trainer.train()
    evaluated = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    best = max(evaluated, key=lambda entry: entry["eval_" + TASKS[args.task][5]])
    training = done.metrics["train_runtime"] - sum(entry["eval_runtime"] for entry in evaluated)
    print(json.dumps({
        "side": "peft", "task": args.task, "method": args.method, "seed": args.seed, "accuracy": best["eval_accuracy"], "f1": best["eval_f1"],
        "epoch": round(best["epoch"]), "parameters": sum(w.numel() for w in adapters), "ms_per_step": 1e3 * training / trainer.state.global_step,
    }))


if __name__ == "__main__":
    main()
