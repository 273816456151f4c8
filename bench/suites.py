"""What bench/step.py measures: lines of a side, a shape and options each, by suites."""

from dataclasses import dataclass

BACKBONES = {
    "deberta-v3-base": "deberta-v2", "bert-base": "bert", "minilm": "bert", "bart-large": "bart", "llama-7b": "llama",
    "llama-13b": "llama", "smollm2-135m": "llama", "gpt2": "gpt2",
}


@dataclass
class Line:
    """One measurement. `bar` marks those that a bar of docs/performance.md needs: with --bars they alone are made."""

    side: str
    model: str
    method: str
    batch: int
    length: int
    options: tuple
    ranks: int = 1
    bar: bool = False

    def __str__(self):
        ranks = f", {self.ranks} GPUs" if self.ranks > 1 else ""
        return " ".join([f"{self.side} {self.model} {self.method} {self.batch} x {self.length}{ranks}", *self.options])

    def compiles_alike(self):
        """Whether torch.compile makes the same of it however busy the GPU is."""
        return "compile" in self.options or "reduce-overhead" in self.options


def ours(model, method, batch, length, *options, ranks=1, bar=False):
    return Line("ours", model, method, batch, length, options, ranks, bar)


def peft(model, method, batch, length, *options, mode="eager", precision="bf16", kernels=None, ranks=1, bar=False):
    kernels = ("--kernels", kernels) if kernels else ()
    return Line("peft", model, method, batch, length, ("--mode", mode, "--precision", precision, *kernels, *options), ranks, bar)


def run(side, model, task="mrpc", bar=True):
    """A whole run on real data, by our program or by transformers' Trainer with PEFT."""
    return Line(f"run-{side}", model, "lora", 32, 128, (task,), bar=bar)


D, E, M, B, L, X, S, G = BACKBONES
CHECKPOINTING = "--checkpointing"


def every_peer(model, method, batch, length, *kernels, best=()):
    """PEFT operation by operation, compiled in both ways, and with each of the packages `kernels`. A bar needs those of `best`."""
    ways = {way: {"mode": way} for way in ("eager", "compile", "reduce-overhead")} | {package: {"kernels": package} for package in kernels}
    return [peft(model, method, batch, length, **way, bar=name in best) for name, way in ways.items()]


FOR_DEBERTA = ("flashdeberta", "disentangled")

SUITES = {
    # AFLoRA on DeBERTaV3-base's shape beside its kin and every peer, short texts and long.
    "deberta": [
        ours(D, "aflora", 32, 128, bar=True), *every_peer(D, "lora", 32, 128, *FOR_DEBERTA, best=("reduce-overhead",)),
        ours(D, "aflora-frozen", 32, 128, bar=True), ours(D, "lora", 32, 128, bar=True), ours(D, "elora", 32, 128, bar=True),
        ours(D, "aflora-never", 32, 128), ours(D, "aflora", 32, 128), ours(D, "aflora-frozen", 32, 128),
        ours(D, "aflora", 4, 128, bar=True), *every_peer(D, "lora", 4, 128, *FOR_DEBERTA, best=("eager", "reduce-overhead")),
        ours(D, "aflora", 16, 512, bar=True), *every_peer(D, "lora", 16, 512, *FOR_DEBERTA, best=("reduce-overhead", "disentangled")),
        ours(D, "aflora", 4, 2048, bar=True), *every_peer(D, "lora", 4, 2048, *FOR_DEBERTA, best=FOR_DEBERTA),
    ],
    # Other models whose step the launches bound.
    "models": [
        line
        for model, method, batch, length, best in (
            (E, "lora", 32, 128, "reduce-overhead"), (M, "lora", 32, 128, "reduce-overhead"), (B, "lora:16", 8, 512, "compile"), (G, "lora:16", 8, 512, "reduce-overhead"))
        for line in (
            ours(model, "aflora-gsm8k:16" if model in (B, G) else "aflora", batch, length), ours(model, method, batch, length, bar=True),
            *every_peer(model, method, batch, length, best=(best,)))
    ],
    "decoders": [
        ours(L, "lora:32", 8, 256, bar=True), *every_peer(L, "lora:32", 8, 256, "liger", best=("compile", "liger")), ours(L, "aflora-gsm8k:32", 8, 256),
        ours(L, "lora:32", 2, 2048, bar=True), *every_peer(L, "lora:32", 2, 2048, "liger", best=("compile", "liger")),
        ours(S, "lora:32", 16, 384, bar=True), ours(S, "lora:32", 16, 384, "checkpointing", bar=True),
        peft(S, "lora:32", 16, 384, bar=True), peft(S, "lora:32", 16, 384, kernels="liger", bar=True),
    ],
    # A frozen base in four bits, beside our own bf16 and bitsandbytes'.
    "quantised": [
        ours(L, "lora:32", 8, 256, "checkpointing", bar=True), ours(L, "lora:32", 8, 256, "checkpointing", "precision=nf4", bar=True),
        peft(L, "lora:32", 8, 256, CHECKPOINTING, precision="nf4", bar=True), peft(L, "lora:32", 8, 256, CHECKPOINTING),
        ours(L, "aflora-gsm8k:32", 8, 256, "checkpointing", "precision=nf4"),
        ours(L, "lora:32", 1, 512, "precision=nf4", bar=True), peft(L, "lora:32", 1, 512, precision="nf4", bar=True),
    ],
    # Peers compiled in the ways that take minutes, and other precisions and shapes.
    "modes": [
        ours(D, "aflora", 32, 128), peft(D, "lora", 32, 128, mode="max-autotune-no-cudagraphs"), ours(D, "aflora", 32, 128, "graphs=off"),
        ours(D, "aflora", 64, 128), peft(D, "lora", 64, 128), ours(D, "aflora", 16, 256), peft(D, "lora", 16, 256),
        ours(D, "aflora", 32, 128, "precision=fp32"), ours(D, "aflora", 32, 128, "precision=tf32"),
        peft(D, "lora", 32, 128, precision="fp32"),
        ours(L, "lora:32", 8, 256), peft(L, "lora:32", 8, 256, mode="max-autotune-no-cudagraphs"),
        peft(L, "lora:32", 8, 256, mode="compile", kernels="liger"),
    ],
    # Two GPUs beside one, under DDP; and LLaMA-13B's shape with a base that is spread over both (PEFT: FSDP2).
    "two-gpus": [
        *[
            line
            for model, method, batch, length in ((D, "aflora", 32, 128), (L, "lora:32", 8, 256))
            for line in (
                ours(model, method, batch, length, bar=True), ours(model, method, batch, length, ranks=2, bar=True),
                peft(model, method.replace("aflora", "lora"), batch, length),
                peft(model, method.replace("aflora", "lora"), batch, length, ranks=2, bar=True))
        ],
        ours(X, "lora:32", 8, 256, "checkpointing", ranks=2, bar=True),
        ours(X, "lora:32", 8, 256, "checkpointing", "shard=on", ranks=2, bar=True),
        peft(X, "lora:32", 8, 256, CHECKPOINTING, "--spread", ranks=2, bar=True),
    ],
    # From the command to the metrics.
    "runs": [run("ours", "minilm"), run("peft", "minilm"), run("ours", "mpnet-base"), run("peft", "mpnet-base")],
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
    "cpu": [
        line
        for precision in ("fp32", "bf16")
        for line in (
            ours(M, "aflora", 32, 64, f"precision={precision}", bar=True), peft(M, "lora", 32, 64, precision=precision, bar=True),
            ours(M, "lora", 32, 64, f"precision={precision}"), ours(M, "aflora-frozen", 32, 64, f"precision={precision}"),
            peft(M, "lora", 32, 64, precision=precision, mode="compile"))
    ] + [ours(M, "aflora", 32, 64, "precision=int8_dynamic", bar=True), peft(M, "lora", 32, 64, precision="autocast"), peft(M, "vera", 32, 64, precision="fp32"),
         ours(M, "elora", 32, 64, "precision=fp32")],
}
