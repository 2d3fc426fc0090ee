#!/usr/bin/env bash
# Runs what only a GPU can show, in order of worth, unattended: scripts/gpu_check.py says what, and what it leaves.
#
#   bash scripts/gpu_check.sh                     # all parts; results under gpu_check/
#   bash scripts/gpu_check.sh --parts 1,2         # some of them
#   bash scripts/gpu_check.sh --dry-run           # on a CPU at tiny sizes: what can run, does it? gpu_check/dry_run/
#
# PYTHON names the interpreter (default: .venv/bin/python if there is one, else python3). Nothing is downloaded.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
[[ -n "${PYTHON:-}" || -x "$python" ]] || python=python3
exec "$python" "$root/scripts/gpu_check.py" "$@"
