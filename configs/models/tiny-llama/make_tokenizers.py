"""The vocabularies of tiny-llama and tiny-bart, learned from this project's own documentation (tokenizers 0.22).

    python make_tokenizers.py

Writes tokenizer.json beside this file and in ../tiny-bart: a byte-level BPE of 1,024 tokens, digits one by one. LLaMA's
texts begin with <s>; BART's stand between <s> and </s>. A tokenizer_config.json beside tiny-bart's has transformers take
the file as it is, and not as one of BART's own.
"""

import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def sentences():
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/**/*.rs")]):
        for line in path.read_text().splitlines():
            words = line if path.suffix == ".md" else re.sub(r"^\s*//[/!]? ?", "", line) if "//" in line[:12] else ""
            if words.strip():
                yield words.strip()


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIAL],
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    for folder, template in [("tiny-llama", "<s> $A"), ("tiny-bart", "<s> $A </s>")]:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        tokenizer.save(str(HERE.parent / folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
