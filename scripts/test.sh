#!/usr/bin/env bash
# Sets up .venv if needed, then runs ruff, the build of the site and the tests. Arguments go to pytest: bash scripts/test.sh tests/rewards -x
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup_env.sh"
python="$root/.venv/bin/python"
"$python" -m ruff check "$root"
"$python" -m ruff format --check "$root"
# With arguments somebody wants some tests, not the site; its check of what pages name is among the tests too.
if [[ $# -eq 0 ]]; then NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict --config-file "$root/mkdocs.yml"; fi
# Paths among the arguments are relative to the caller's folder; without any, pyproject.toml names tests/.
if [[ $# -eq 0 ]]; then cd "$root"; fi
exec "$python" -m pytest --rootdir "$root" -c "$root/pyproject.toml" "$@"
