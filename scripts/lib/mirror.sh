# Sourced by scripts/bench after servers.sh: a pair whose nodes have an NVRAM each, and the limit of its interconnect.

# Starts a pair. Arguments: the name of node a here, the number of its network. Node b runs in a network namespace of
# its own, connected only by the interconnect. Clients connect to node a alone, so no takeover is measured.
start_mirror() {
    local server=$1 holder tries=0
    unshare --net sleep infinity &
    holder=$!
    until [ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "no network namespace for the partner"
        sleep 0.02
    done
    apart=(nsenter "--net=/proc/$holder/ns/net")
    ip link add ic0 type veth peer name ic1 netns "$holder"
    ip addr add 10.79.0.1/24 dev ic0
    ip link set ic0 up
    "${apart[@]}" ip link set lo up
    "${apart[@]}" ip addr add 10.79.0.2/24 dev ic1
    "${apart[@]}" ip link set ic1 up
    "${apart[@]}" ip tuntap add "tap$2" mode tap
    "${apart[@]}" ip link set "tap$2" up
    "$OUTLAST" pair init --directory "$dir" > /dev/null
    outlast_more='[partner]
node = "a"
lock = "'$dir/pair.lock'"
interconnect = ["10.79.0.1:4450", "10.79.0.2:4450"]
key = "'$dir/node-a.pem'"'
    start_outlast "$server" "$2" mirror
    outlast_more=
    # The first node that is started serves.
    await "$server"
    sed -e 's/^node = "a"/node = "b"/' -e 's/node-a\.pem/node-b.pem/' -e "s/$server\\.sock/$server-b.sock/" \
        -e "s/$server\\.nvram/$server-b.nvram/" "$dir/$server.toml" > "$dir/$server-b.toml"
    "${apart[@]}" "$OUTLAST" serve --config "$dir/$server-b.toml" > "$dir/$server-b.log" 2>&1 &
}

# Waits until the partner has the whole log.
await_in_step() {
    local tries=0
    until "$OUTLAST" status --json --config "$dir/$1.toml" 2> /dev/null | grep -q '"in_step": *true'; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] \
            || fail "the partner is not in step: $(tail -qn 2 "$dir/$1.log" "$dir/$1-b.log" | tr '\n' ' ')"
        sleep 0.1
    done
}

# Prints the MiB per second of a loop that sends this many MiB over the interconnect's link, 256 KiB at a time, each
# answered by one byte, without a log and without encryption.
bare_loop() {
    "${apart[@]}" python3 "$top/scripts/lib/bare_loop.py" listen 10.79.0.2 4460 &
    local listener=$!
    python3 "$top/scripts/lib/bare_loop.py" send 10.79.0.2 4460 "$1"
    wait "$listener"
}
