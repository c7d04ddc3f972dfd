#!/bin/bash
# Install the Debian packages that are missing, as root or by sudo without a password; otherwise say what to run.
# Only a checkout that runs providers (Linux) needs bubblewrap. npm fetches anvil, so who has one needs no npm.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
python=$(./python.sh 2>/dev/null) || { missing+=(python3 python3-venv) && python=""; }
if [ -n "$python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
fi
if [ "$(uname -s)" = Linux ] && ! command -v bwrap >/dev/null; then
    missing+=(bubblewrap)
fi
if ! command -v anvil >/dev/null && ! command -v npm >/dev/null; then
    missing+=(npm)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "missing: ${missing[*]}. Run this, then the same command again: sudo apt-get install -y ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
