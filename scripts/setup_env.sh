#!/usr/bin/env bash
# Creates .venv beside this folder with everything the project needs on a CPU, or returns at once if it is up to date.
#
#   bash scripts/setup_env.sh
#
# PYTHON names the Python 3.11 to use (default: python3.11, else python3). pip's own configuration is respected. uv installs
# the locked packages, and pip where uv cannot.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"
lock="$root/requirements/cpu.txt"
log="$venv/setup.log"
stamp="$venv/setup.stamp"
uv="uv==0.13.9"
torch_index="https://download.pytorch.org/whl/cpu"

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

# Runs a command with its output in the log, and shows the log's end if the command fails.
logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 && return
    tail -n 30 "$log" >&2
    fail "the command above failed; the whole log is $log"
}

# Files that decide what is installed, and where: an editable install and its scripts break when the folder moves.
fingerprint() {
    (cd "$root" && { printf '%s\n' "$root"; cat requirements/cpu.txt pyproject.toml scripts/setup_env.sh scripts/uv_install.py scripts/link_package.py scripts/torchvision_ops.py; printf "%s\n" grpo/*; } | sha256sum | cut -d' ' -f1)
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        [[ "$candidate" != "${PYTHON:-}" ]] || fail "PYTHON=$PYTHON is not a working Python 3.11"
    done
    fail "Python 3.11 was not found (the locked packages are for 3.11); install it or set PYTHON"
}

uv_install() { "$python" "$root/scripts/uv_install.py" "$@"; }
pip_install() { "$python" -m pip install --disable-pip-version-check --no-input --no-deps --no-compile "$@"; }

# torch's CPU build lies on an index of its own; other packages come from where pip is configured to look.
install_locked() {
    local install="$1" requirement
    requirement="$(grep -E '^torch==' "$lock")"
    if "$python" -c "import importlib.metadata as m, sys; sys.exit('torch==' + m.version('torch') != sys.argv[1])" \
        "$requirement" 2>/dev/null; then
        say "$requirement is already installed"
    elif "$install" "$requirement" >>"$log" 2>&1; then
        say "$requirement: from pip's configured sources"
    else
        say "$requirement: not in pip's configured sources, trying $torch_index"
        "$install" --extra-index-url "$torch_index" "$requirement" >>"$log" 2>&1 || return 1
    fi
    say "installing the $count packages of requirements/cpu.txt (log: $log)"
    "$install" -r "$lock" >>"$log" 2>&1
}

[[ "$(uname -sm)" == "Linux x86_64" ]] || fail "the locked packages are for Linux x86_64; this is $(uname -sm)"
current="$(fingerprint)"
if [[ -x "$python" && -f "$stamp" && "$(cat "$stamp")" == "$current" ]]; then
    say "$venv is up to date"
    exit 0
fi

if ! "$python" -m pip --version >/dev/null 2>&1; then
    base="$(find_python)" || exit 1
    say "creating $venv with $("$base" --version)"
    "$base" -m venv --clear "$venv"
fi
rm -f "$stamp"
: >"$log"

count="$(grep -cE '^[a-zA-Z0-9]' "$lock")"
if ! { pip_install "$uv" >>"$log" 2>&1 && install_locked uv_install; }; then
    say "uv could not install them (see the log), trying pip, which takes minutes"
    install_locked pip_install || { tail -n 30 "$log" >&2; fail "installing failed; the whole log is $log"; }
fi
say "installing blip3o-grpo itself, editable"
logged pip_install --no-build-isolation --editable "$root"
logged "$python" "$root/scripts/link_package.py" "$venv/editable"

# A CPU torch beside PyPI's CUDA build of torchvision: see scripts/torchvision_ops.py.
site="$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
cp "$root/scripts/torchvision_ops.py" "$site/_blip3o_torchvision_ops.py"
printf 'import _blip3o_torchvision_ops\n' >"$site/_blip3o_torchvision_ops.pth"

# A run is a dozen processes. Where Python may not keep bytecode (PYTHONDONTWRITEBYTECODE, a read-only folder), each of them
# would compile torch and vLLM anew, which doubles the time to start. Some packages hold files that are no Python: not fatal.
say "compiling all packages to bytecode"
"$python" -m compileall -q -q -j 0 "$site" >>"$log" 2>&1 || true

say "laying out the OCR models"
logged "$python" -m blip3o_grpo.rewards.ocr.models
printf '%s\n' "$current" >"$stamp"
say "done"
