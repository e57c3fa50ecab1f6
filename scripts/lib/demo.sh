# Sourced by scripts/demo and scripts/vm-demo. The script that sources it has set `top`.

target=${CARGO_TARGET_DIR:-$top/target}

# Builds the program of the demonstration. Arguments: further packages or targets for cargo. A binary in OUTLAST is used
# as it is, if the program is beside it.
build_demo() {
    if [ -n "${OUTLAST:-}" ] && [ -x "${OUTLAST%/*}/outlast-demo" ]; then
        return
    fi
    if ! command -v cargo >/dev/null; then
        echo "demo: no Rust toolchain: install the stable one with rustup, then run this again" >&2
        exit 1
    fi
    echo "Building Outlast (some minutes, the first time) ..."
    (cd "$top" && cargo build --release --locked --quiet --package outlast --package outlast-demo --bins "$@")
    OUTLAST=$target/release/outlast
}

# Replaces this script by the demonstration, in namespaces that end with it, together with all their processes.
enter_demo() {
    if [ ! -c /dev/net/tun ]; then
        echo "demo: there is no /dev/net/tun here (modprobe tun)" >&2
        exit 1
    fi
    if [ ! -r /dev/net/tun ] || [ ! -w /dev/net/tun ]; then
        echo "demo: this account may not open /dev/net/tun: run it as root, or chmod 666 /dev/net/tun" >&2
        exit 1
    fi
    export OUTLAST
    local user=()
    # The account keeps its id: programs that drop root's rights would fail in a namespace with a single id.
    [ "$(id -u)" -eq 0 ] || user=(--user --map-current-user --keep-caps)
    exec unshare "${user[@]}" --net --mount --pid --fork --mount-proc --kill-child \
        "${OUTLAST%/*}/outlast-demo" --output "$target/demo" "$@"
}
