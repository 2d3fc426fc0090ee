#!/usr/bin/env bash
# Sets up .venv if needed, then runs ruff and the tests. Arguments go to pytest: bash scripts/test.sh tests/rewards -x
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup_env.sh"
python="$root/.venv/bin/python"
"$python" -m ruff check "$root"
"$python" -m ruff format --check "$root"
# Paths among the arguments are relative to the caller's folder; without any, pyproject.toml names tests/.
if [[ $# -eq 0 ]]; then cd "$root"; fi
exec "$python" -m pytest --rootdir "$root" -c "$root/pyproject.toml" "$@"
