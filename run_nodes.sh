#!/usr/bin/env bash
# Starts the nodes of config/cluster.toml in the background, and stops them again. It touches only the processes it started.
set -euo pipefail
cd "$(dirname "$0")"

run=data/run                       # pid files, logs and, for another number of nodes, the configuration
profile=${PROFILE:-release}
config=${CLOUD_CONFIG:-config/cluster.toml}

usage() {
    cat <<'TEXT'
usage: ./run_nodes.sh [start [N] | stop | status | reset]

  ./run_nodes.sh            start the nodes of config/cluster.toml that do not run yet, and wait until they are ready
  ./run_nodes.sh start 5    the same with five nodes on 127.0.0.1:8001 to :8005
  ./run_nodes.sh status     one line per node: pid, ready or not
  ./run_nodes.sh stop       stop the nodes that this script started; data stays
  ./run_nodes.sh reset      stop them and delete their data and secrets: the next start makes a new cluster

Logs: data/run/node-N.log, each line labelled; all together: tail -F data/run/node-*.log
Environment: CLOUD_CONFIG=FILE, PROFILE=dev for a debug build, RUST_LOG=debug.
TEXT
}

die() { echo "run_nodes.sh: $*" >&2; exit 1; }

# Is that process (still) a node that this script started?
is_ours() { [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -q 'cloud-node'; }

pid_of() { cat "$run/node-$1.pid" 2>/dev/null || true; }

started() { local file; for file in "$run"/node-*.pid; do [ -e "$file" ] && basename "$file" .pid | cut -d- -f2; done | sort -n; }

any_runs() { local id; for id in $(started); do if is_ours "$(pid_of "$id")"; then return 0; fi; done; return 1; }

address_of() { awk -v id="$1" '/^id *=/ { found = ($3 == id) } found && /^http *=/ { gsub(/"/, "", $3); print $3; exit }' "$config"; }

# Does anything listen there?
listens() { { exec 3<>"/dev/tcp/${1%:*}/${1##*:}"; } 2>/dev/null && exec 3>&-; }

# GET /readyz without curl, which a fresh machine lacks.
ready() {
    local line
    { exec 3<>"/dev/tcp/${1%:*}/${1##*:}"; } 2>/dev/null || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
    IFS= read -r -t 1 line <&3 || line=""
    exec 3>&-
    [[ $line == *" 200 "* ]]
}

start() {
    local count=$1 id pid address deadline
    mkdir -p "$run"
    if [ -n "$count" ]; then
        [[ $count =~ ^[1-9][0-9]?$ ]] && [ "$count" -le 31 ] || die "\"$count\" is not a number of nodes from 1 to 31"
        config=$run/cluster.toml
        local text; text=$(for ((id = 1; id <= count; id++)); do printf '[[nodes]]\nid = %d\nhttp = "127.0.0.1:%d"\n\n' "$id" $((8000 + id)); done)
        [ "$text" = "$(cat "$config" 2>/dev/null)" ] || ! any_runs || die "nodes of another configuration run: ./run_nodes.sh stop"
        echo "$text" >"$config"
    elif [ -r "$run/cluster.toml" ] && any_runs; then
        die "nodes that were started by their number run: ./run_nodes.sh start $(grep -c '^id' "$run/cluster.toml"), or ./run_nodes.sh stop"
    fi
    [ -r "$config" ] || die "there is no $config"
    local ids new=""; ids=$(awk '/^id *=/ { print $3 }' "$config")
    for id in $ids; do
        pid=$(pid_of "$id")
        if [ -n "$pid" ] && is_ours "$pid"; then
            echo "node $id runs already (pid $pid)"
            continue
        fi
        address=$(address_of "$id")
        ! listens "$address" || die "something listens on $address already: end the node $id that was started elsewhere, or what else it is"
        new="$new $id"
    done

    cargo build --profile "$profile" --bins
    local built=${CARGO_TARGET_DIR:-target} binary
    binary=$built/$profile/cloud-node
    [ "$profile" != dev ] || binary=$built/debug/cloud-node
    for id in $new; do
        "$binary" "$id" --config "$config" </dev/null > >(exec sed -u "s/^/[node $id] /" >>"$run/node-$id.log" 2>/dev/null) 2>&1 &
        echo $! >"$run/node-$id.pid"
    done
    deadline=$((SECONDS + 30))
    for id in $new; do
        address=$(address_of "$id")
        until ready "$address"; do
            pid=$(pid_of "$id")
            if ! is_ours "$pid"; then
                tail -n 3 "$run/node-$id.log" >&2
                stop "$new" >/dev/null
                die "node $id did not start; its last words are above, all of them in $run/node-$id.log"
            fi
            if [ $SECONDS -ge $deadline ]; then
                tail -n 3 "$run/node-$id.log" >&2
                stop "$new" >/dev/null
                die "node $id was not ready after 30 s, so those that were started now were stopped; its last words are above, all in $run/node-$id.log"
            fi
            sleep 0.1
        done
        echo "node $id ready on http://$address (pid $(pid_of "$id"))"
    done
    local which=""
    [ "$config" = config/cluster.toml ] || which=" --config $config"
    echo "next: cargo run --release --bin client -- status$which      stop: ./run_nodes.sh stop      logs: tail -F $run/node-*.log"
}

# Stops these nodes.
stop() {
    local id pid deadline
    for id in $1; do
        pid=$(pid_of "$id")
        is_ours "$pid" && kill -TERM "$pid" 2>/dev/null || true
    done
    deadline=$((SECONDS + 10))
    for id in $1; do
        pid=$(pid_of "$id")
        while is_ours "$pid"; do
            if [ $SECONDS -ge $deadline ]; then
                echo "node $id does not stop: killing pid $pid" >&2
                kill -KILL "$pid" 2>/dev/null || true
            fi
            sleep 0.1
        done
        rm -f "$run/node-$id.pid"
        echo "node $id stopped"
    done
}

status() {
    local id pid any=""
    [ ! -r "$run/cluster.toml" ] || [ -n "${CLOUD_CONFIG:-}" ] || config=$run/cluster.toml
    for id in $(started); do
        any=yes
        pid=$(pid_of "$id")
        if ! is_ours "$pid"; then echo "node $id  dead (was pid $pid); its log: $run/node-$id.log"
        elif ready "$(address_of "$id")"; then echo "node $id  ready (pid $pid)"
        else echo "node $id  not ready (pid $pid)"; fi
    done
    [ -n "$any" ] || echo "no node was started by this script"
}

reset() {
    local id address
    stop "$(started)"
    [ ! -r "$run/cluster.toml" ] || [ -n "${CLOUD_CONFIG:-}" ] || config=$run/cluster.toml
    for id in $(awk '/^id *=/ { print $3 }' "$config"); do
        address=$(address_of "$id")
        ! listens "$address" || die "something listens on $address still: end the node $id that was started elsewhere; nothing was deleted"
    done
    local data; data=$(awk -F'"' '/^data *=/ { print $2; exit }' "$config")
    rm -rf "$run" "${data:-data}"/cluster "${data:-data}"/node-*
    echo "data deleted: the next start makes a new cluster"
}

case "${1:-start}" in
    start) start "${2:-}" ;;
    [1-9]*) start "$1" ;;
    stop) stop "$(started)"; rm -f "$run/cluster.toml" ;;
    status) status ;;
    reset) reset ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
esac
