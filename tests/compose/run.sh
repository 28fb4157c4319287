#!/usr/bin/env bash
# Runs tests/integration against `docker compose up` on a real engine.
#
#   tests/compose/run.sh PYTHON [pytest's arguments]
#
# Uses the engine that answers. If none does, and we are root, starts one of our own in a temporary
# directory, with base images made by debootstrap (no registry is needed), and ends it afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$1
shift

note() { echo "test-compose: $*" >&2; }

install_missing() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v docker-compose >/dev/null || docker compose version &>/dev/null || missing+=(docker-compose)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    if ((${#missing[@]})); then
        note "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
}

start_engine() {
    work=$(mktemp -d /tmp/replicad-compose.XXXXXX)
    export DOCKER_HOST="unix://$work/docker.sock"
    # In a session of its own: Ctrl-C must reach this script first, which then ends it in order.
    setsid dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" \
        --pidfile "$work/dockerd.pid" </dev/null >"$work/dockerd.log" 2>&1 &
    engine=$!
    trap stop_engine EXIT
    for _ in $(seq 300); do
        docker info &>/dev/null && return
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$work/dockerd.log" >&2
    note "dockerd does not answer"
    return 1
}

stop_engine() {
    docker ps --quiet | xargs --no-run-if-empty docker kill >/dev/null || true
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    grep -o " $work/[^ ]*" /proc/mounts | tac | xargs --no-run-if-empty umount || true
    rm -rf --one-file-system "$work"
}

make_base_images() {
    note "making a base image with debootstrap"
    debootstrap --variant=minbase bookworm "$work/bookworm" >"$work/debootstrap.log" 2>&1 \
        || { tail -n 20 "$work/debootstrap.log" >&2; return 1; }
    tar -C "$work/bookworm" -c . | docker import - replicad-test/debian >/dev/null
    # pip inside a build must trust what this machine trusts: a matter of the test, not of what
    # is shipped.
    mkdir "$work/python"
    cp /etc/ssl/certs/ca-certificates.crt "$work/python/ca.crt"
    docker build --quiet --tag replicad-test/python --file - "$work/python" >/dev/null <<'EOF'
FROM replicad-test/debian
COPY ca.crt /opt/ca.crt
ENV PIP_CERT=/opt/ca.crt PIP_DEFAULT_TIMEOUT=180
EOF
    export DEBIAN_IMAGE=replicad-test/debian PYTHON_IMAGE=replicad-test/python
}

if ! docker info &>/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        note "no container engine answers; start one, or run this as root"
        exit 1
    fi
    install_missing
    start_engine
    make_base_images
fi

REPLICAD_TEST_BACKENDS=compose "$python" -m pytest tests/integration \
    --timeout 900 "$@"
