#!/usr/bin/env bash
# Sets up .venv if needed and fine-tunes the tiny policy on one machine without a GPU.
#
#   bash scripts/train.sh                          # configs/tiny_ocr.yaml
#   bash scripts/train.sh seed=1 run_dir=runs/s1   # with overrides
#
# The last line printed is the path of the run's summary.json.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup_env.sh"
exec "$root/.venv/bin/blip3o-grpo" train "$root/configs/tiny_ocr.yaml" "$@"
