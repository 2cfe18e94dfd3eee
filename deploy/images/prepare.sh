#!/bin/sh
# In an image that is being built: trust a plant's own authority, take packages from its own mirror.
set -e
if [ -n "$APT_MIRROR" ]; then
    find /etc/apt -name '*.list' -o -name '*.sources' | xargs sed -E -i "s#https?://[^/ ]+/#$APT_MIRROR/#"
fi
if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
    command -v update-ca-certificates >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates; }
    update-ca-certificates
fi
