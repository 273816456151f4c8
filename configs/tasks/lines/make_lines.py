"""The rows that ship with the task `lines`: numbers below 10,000, in words and in digits.

    python make_lines.py

Writes train.jsonl (2,000 rows) and dev.jsonl (100 other ones) beside this file.
"""

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def words(n):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")
    size, name = (100, "hundred") if n < 1000 else (1000, "thousand")
    rest = n % size
    return f"{words(n // size)} {name}" + (f" {'and ' if rest < 100 else ''}{words(rest)}" if rest else "")


def main():
    numbers = random.Random(0).sample(range(10_000), 2_100)
    for name, part in [("train", numbers[:2_000]), ("dev", numbers[2_000:])]:
        rows = [json.dumps({"input": words(n), "target": str(n)}) + "\n" for n in part]
        (HERE / f"{name}.jsonl").write_text("".join(rows))


if __name__ == "__main__":
    main()
