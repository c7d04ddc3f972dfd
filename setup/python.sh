#!/bin/sh
# Print the interpreter to build with: 3.11 first, since the lock files are resolved for it, else a newer one.
for python in python3.11 python3 python3.12 python3.13 python3.14; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" -c 'import sys; print(sys.executable)'
    fi
done
echo "no python3 of version 3.11 or later on PATH: install one (Debian 12: apt install python3)" >&2
exit 1
