#!/usr/bin/env bash
# Before `docker compose up`: whether this machine can run the demo, and what to do where it can't.
# check.sh [--gpu] [--other-ports]    --other-ports: those of .env will not be used
set -uo pipefail
cd "$(dirname "$0")"
least_gb=6 compose_needed=2.24
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
if ! about=$(docker info --format '{{.MemTotal}} {{.NCPU}} {{.DockerRootDir}} {{json .Runtimes}}' 2>&1) || [[ ! $about =~ ^[1-9] ]]; then
    blame "the Docker engine does not answer. Start it (sudo systemctl start docker), or let this user use it" \
        "(sudo usermod -aG docker \$USER, then log in again). It said: ${about##*$'\n'}"
    exit 1
fi
version=$(docker compose version --short 2>/dev/null) || version=0
older "${version#v}" "$compose_needed" && blame "Docker Compose $compose_needed is needed, found ${version}. Update the package docker-compose-plugin."

read -r memory cpus root runtimes <<<"$about"
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
if [[ " $* " != *" --other-ports "* ]] && [ -z "$(docker compose ps --quiet 2>/dev/null)" ]; then # else they are the demo's own
    ports="KAFKA_PORT STORE_PORT STORE_CONSOLE_PORT"
    case ",${COMPOSE_PROFILES:-}," in *,observability,* | *,metrics,*) ports+=" PROMETHEUS_PORT" ;; esac
    case ",${COMPOSE_PROFILES:-}," in *,observability,*) ports+=" GRAFANA_PORT" ;; esac
    for name in $ports; do
        port=$(value $name)
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            blame "port $port is taken on this machine by another program. Set $name to a free one in deploy/.env."
        fi
    done
fi
# Files are mounted with the rights that they have here, and the containers' users are others.
for file in healthy.sh prometheus/prometheus.yml ../docs/examples/subscriber.py "$(value PACK)" "$(value SECRETS)"/{store_access_key,store_secret_key,grafana_password}; do
    if [ ! -e "$file" ]; then
        blame "deploy/$file is missing."
    elif [ -z "$(find -L "$file" -perm -o=r)" ]; then
        blame "deploy/$file can't be read by the users of the containers: chmod o+r $(realpath "$file")"
    fi
done
if [ -d "$root" ]; then
    least_disk_gb=30
    docker image inspect "$(value LINE_IMAGE)" >/dev/null 2>&1 && least_disk_gb=10 # built already
    free_gb=$(($(df --output=avail -k "$root" | tail -n 1) / 1000000))
    [ "$free_gb" -lt $least_disk_gb ] && blame "$root, where Docker keeps images and volumes, has $free_gb GB free, the demo needs" \
        "$least_disk_gb GB. Make room ('docker system prune'), or move Docker's data-root."
fi
if [[ " $* " == *" --gpu "* ]] && [[ $runtimes != *nvidia* ]]; then
    blame "the Docker engine knows no NVIDIA GPU. Install the NVIDIA driver and nvidia-container-toolkit, then" \
        "'sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker'; or leave docker-compose.gpu.yml out of COMPOSE_FILE."
fi
[ $status -eq 0 ] && echo "ready: Docker Compose $version, $cpus cores, $((memory / 1000000)) MB"
exit $status
