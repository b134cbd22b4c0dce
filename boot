#!/usr/bin/env bash
# Boot a guest: installs portvisor into .venv, fetches what the guest needs, and starts it.
# Arguments go to `portvisor boot`; ./boot --help lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/env.sh
ensure_environment ""
exec "$VENV/bin/portvisor" boot "$@"
