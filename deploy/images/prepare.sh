#!/bin/sh
# In an image that is being built: trust a plant's own authority, take Debian's packages from its own mirror.
set -e
if [ -n "$APT_MIRROR" ]; then
    find /etc/apt \( -name '*.list' -o -name '*.sources' \) -exec sed -E -i "s#https?://[^/ ]+/#$APT_MIRROR/#" {} +
fi
cd /usr/local/share/ca-certificates
if ls ./*.crt >/dev/null 2>&1; then
    if ! command -v update-ca-certificates >/dev/null; then
        # Its package comes over https as well where the mirror does.
        cat ./*.crt >/etc/apt/plant.pem
        echo 'Acquire::https::CaInfo "/etc/apt/plant.pem";' >/etc/apt/apt.conf.d/90plant
        apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates
    fi
    update-ca-certificates
fi
