"""The vocabulary of tiny-deberta, learned from this project's own documentation (sentencepiece 0.2.3).

    python make_spm.py

Writes spm.model beside this file: 1,500 unigram pieces with the special tokens and the normaliser of DeBERTa-v3's.
"""

import io
import re
from pathlib import Path

import sentencepiece

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def sentences():
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/**/*.rs")]):
        for line in path.read_text().splitlines():
            words = line if path.suffix == ".md" else re.sub(r"^\s*//[/!]? ?", "", line) if "//" in line[:12] else ""
            if words.strip():
                yield words.strip()


def main():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(), model_writer=model, model_type="unigram", vocab_size=1500, num_threads=1,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]", minloglevel=2,
    )
    (HERE / "spm.model").write_bytes(model.getvalue())


if __name__ == "__main__":
    main()
