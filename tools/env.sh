# Sourced by ./boot and ./test: a virtual environment with portvisor in it, made once and kept up to date.
# Sets PYTHON and VENV. Usage: . tools/env.sh; ensure_environment EXTRAS

say() { if [ -t 2 ]; then printf '\033[1m==>\033[0m %s\n' "$*" >&2; else printf '==> %s\n' "$*" >&2; fi; }
fail() { printf 'portvisor: %s\n' "$*" >&2; exit 1; }

VENV="${PORTVISOR_VENV:-$PWD/.venv}"
PYTHON="$VENV/bin/python"

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed (Debian: apt-get install python3 python3-venv python3-dev gcc)"
}

# What the installed environment depends on; it is renewed when any of it changes.
fingerprint() {
    { printf '%s\n' "$1" "$PWD"; cat pyproject.toml; find src -name '*.[ch]' | sort | xargs cat; } |
        sha256sum | cut -d' ' -f1
}

# Of pip's output: the name of each package as it comes.
show_progress() {
    sed -un -e 's/^Collecting \([^ ]*\).*/    \1/p' -e 's/^Installing collected.*/    installing/p' >&2
}

ensure_environment() {
    local extras="$1" base want
    want=$(fingerprint "$extras")
    if [ -x "$PYTHON" ] && [ "$(cat "$VENV/portvisor-$extras" 2>/dev/null)" = "$want" ]; then
        return
    fi
    base=$(find_python) || exit 1
    command -v cc >/dev/null || fail "a C compiler is needed (Debian: apt-get install gcc python3-dev)"
    if [ ! -x "$PYTHON" ]; then
        say "making a virtual environment in $VENV"
        "$base" -m venv "$VENV" || fail "no virtual environment (Debian: apt-get install python3-venv)"
    fi
    say "installing portvisor and what it needs (about a minute the first time)"
    local target="."
    [ -n "$extras" ] && target=".[$extras]"
    "$PYTHON" -m pip install --disable-pip-version-check --editable "$target" 2>&1 | tee "$VENV/install.log" |
        show_progress || {
        tail -n 12 "$VENV/install.log" >&2
        fail "the installation failed; the lines above say why (no network? missing python3-dev?)"
    }
    printf '%s\n' "$want" >"$VENV/portvisor-$extras"
}
