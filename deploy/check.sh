#!/usr/bin/env bash
# Before `docker compose up`: whether this machine can run the demo, and what to do where it can't. check.sh [--gpu]
set -uo pipefail
cd "$(dirname "$0")"
least_gb=6 compose_needed=2.20
status=0

blame() { printf '%s\n' "$*" >&2; status=1; }
value() { # of a variable: the shell's, or that of .env
    local name=$1
    printf '%s' "${!name:-$(sed -n "s/^$name=//p" .env)}"
}
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

if ! command -v docker >/dev/null; then
    blame "docker is not on PATH. Install Docker Engine with its Compose plugin (docker-ce and docker-compose-plugin)."
    exit 1
fi
if ! about=$(docker info --format '{{.MemTotal}} {{.NCPU}} {{json .Runtimes}}' 2>&1) || [[ ! $about =~ ^[1-9] ]]; then
    blame "the Docker engine does not answer. Start it (sudo systemctl start docker), or let this user use it" \
        "(sudo usermod -aG docker \$USER, then log in again). It said: ${about##*$'\n'}"
    exit 1
fi
version=$(docker compose version --short 2>/dev/null) || version=0
older "${version#v}" "$compose_needed" && blame "Docker Compose $compose_needed is needed, found ${version}. Update the package docker-compose-plugin."

read -r memory cpus runtimes <<<"$about"
if [ "$memory" -lt $((least_gb * 950000000)) ]; then
    blame "the Docker engine has $((memory / 1000000)) MB of memory, the demo needs ${least_gb} GB. Give its virtual machine more" \
        "(Docker Desktop: Settings, Resources), or run it on another machine."
fi
for name in KAFKA_CPUS TRITON_CPUS MINIO_CPUS WORKER_CPUS; do
    wanted=$(value $name)
    if older "$cpus" "$wanted"; then
        blame "$name=$wanted, and the Docker engine has $cpus. Set $name=$cpus in deploy/.env."
    fi
done
if [ -z "$(docker compose ps --quiet 2>/dev/null)" ]; then # else they are the demo's own
    for name in KAFKA_PORT STORE_PORT STORE_CONSOLE_PORT PROMETHEUS_PORT GRAFANA_PORT; do
        port=$(value $name)
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            blame "port $port is taken on this machine by another program. Set $name to a free one, in deploy/.env or as" \
                "$name=$((port + 1000)) docker compose up -d."
        fi
    done
fi
if [ "${1:-}" = --gpu ] && [[ $runtimes != *nvidia* ]]; then
    blame "the Docker engine knows no NVIDIA GPU. Install the NVIDIA driver and nvidia-container-toolkit, then" \
        "'sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'; or leave docker-compose.gpu.yml out."
fi
[ $status -eq 0 ] && echo "ready: Docker Compose $version, $cpus cores, $((memory / 1000000)) MB"
exit $status
