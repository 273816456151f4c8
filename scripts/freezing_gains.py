#!/usr/bin/env python3
"""What each projection matrix of a recorded run still gained, and which score foretold it.

    aflora run configs/experiment.yaml method=aflora-trainable record_gradients=true run_dir=runs/recorded …
    scripts/freezing_gains.py runs/recorded [freeze.csv of `aflora replay`]

A matrix' gain from one window of ten steps to the next is -½ <g(k-1) + g(k+2), p(k+1) - p(k)>, with the
means of gradients and values over windows: how far the loss falls along the move, by the slopes before
and behind it, of batches that had no part in it (but for AdamW's momentum). Scores are those of
docs/method.md with the default betas and windows; a score is held against the gain an element from its
step to the end of the run, by Spearman's rank correlation over the matrices.
"""

import csv
import json
import sys

import numpy as np

BETA1, BETA2, WINDOW = 0.85, 0.95, 10
MARKS = (0.1, 0.2, 0.3, 0.5, 0.7)


def read(folder):
    with open(f"{folder}/gradients.bin", "rb") as file:
        header = json.loads(file.readline())
        sizes = [rows * columns for _, (rows, columns) in header["matrices"]]
        numbers = np.frombuffer(file.read(), dtype="<f4")
    n = sum(sizes)
    steps = len(numbers) // (2 * n)
    numbers = numbers[: steps * 2 * n].reshape(steps, 2, n)
    names = [name for name, _ in header["matrices"]]
    return names, np.array(sizes), numbers[:, 0], numbers[:, 1]


def ranks(values):
    order = np.argsort(values, kind="stable")
    out = np.empty(len(values))
    out[order] = np.arange(len(values))
    return out


def spearman(a, b):
    return np.corrcoef(ranks(a), ranks(b))[0, 1]


def main():
    names, sizes, gradients, values = read(sys.argv[1])
    steps = len(gradients)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def sums(flat):
        return np.add.reduceat(flat.astype(np.float64), starts)

    # By step, for freezes fall on steps: a window's gain stands at its first.
    gain = np.zeros((steps, len(names)))
    windows = steps // WINDOW
    means = [x[: windows * WINDOW].reshape(windows, WINDOW, -1).mean(1) for x in (gradients, values)]
    for k in range(1, windows - 2):
        slopes = (means[0][k - 1] + means[0][k + 2]) / 2
        gain[k * WINDOW] = -sums(slopes * (means[1][k + 1] - means[1][k]))
    total = gain.sum(0)
    print(f"{steps} steps, {len(names)} matrices; gain of all of them together: {total.sum():.4f}")
    quarters = [gain[i * steps // 4 : (i + 1) * steps // 4].sum() for i in range(4)]
    print("by quarters of the run: " + "  ".join(f"{q:.4f}" for q in quarters))
    print(f"after 30 % of the steps: {gain[3 * steps // 10:].sum() / total.sum():.2f} of it\n")

    print("gain by matrix, and its share after 30 % of the steps")
    for i in np.argsort(-total):
        late = gain[3 * steps // 10 :, i].sum()
        print(f"{names[i]:<55} {total[i]:8.4f} {late / total[i]:6.2f}  {total[i] / sizes[i]:.2e} an element")

    if len(sys.argv) > 2:
        frozen = {row["matrix"]: row["frozen_at_step"] for row in csv.DictReader(open(sys.argv[2]))}
        at = np.array([int(frozen[name] or steps) for name in names])
        left = sum(gain[at[i] :, i].sum() for i in range(len(names)))
        print(f"\ngain behind the freezes of {sys.argv[2]}: {left / total.sum():.2f} of all")

    smooth, uncertain, peak = (np.zeros_like(values[0]) for _ in range(3))
    promise = np.zeros_like(values[0])
    move, path, before = np.zeros_like(values[0]), np.zeros_like(values[0]), values[0]
    print("\nSpearman's correlation of scores at a step with the gain an element from there on")
    print(f"{'step':>6} {'text':>8} {'own_peak':>9} {'net_motion':>11} {'expected_gain':>14}")
    for t in range(steps):
        g = gradients[t]
        now = np.abs(g)
        deviation = np.abs(now - smooth)
        smooth = BETA1 * smooth + (1 - BETA1) * now
        uncertain = BETA2 * uncertain + (1 - BETA2) * deviation
        if t % WINDOW == 0:
            peak = np.maximum(peak, smooth * uncertain)
            if t > 0:
                moved = values[t] - before
                move = BETA1 * move + (1 - BETA1) * moved
                path = BETA1 * path + (1 - BETA1) * moved * moved
            before = values[t]
            window = t // WINDOW
            if window >= 3:
                last = values[t - WINDOW] - values[t - 2 * WINDOW]
                slopes = (means[0][window - 3] + means[0][window - 1]) / 2
                promise = BETA1 * promise - (1 - BETA1) * slopes * last
        if t in [int(mark * steps) // WINDOW * WINDOW for mark in MARKS]:
            rest = gain[t:].sum(0) / sizes
            scores = [
                sums(smooth * uncertain) / sizes,
                sums(smooth * uncertain) / sums(np.maximum(peak, smooth * uncertain)),
                sums(move * move) / sums(path),
                sums(promise) / sizes,
            ]
            text, own, motion, expected = (spearman(score, rest) for score in scores)
            print(f"{t:6} {text:8.2f} {own:9.2f} {motion:11.2f} {expected:14.2f}")


main()
