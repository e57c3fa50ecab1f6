# Functions for bench, clients, soak and torture: namespaces, a directory, Outlast and Samba in them, and smbclient as
# their client. The script that sources this file sets `top`, `arguments` to its arguments, and `congestion` to the
# clients' congestion control with Outlast (empty: the kernel's default).

export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
name=${0##*/}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$name: $*"; exit 1; }
number() { case "${1:-}" in "" | *[!0-9]* | 0*) usage ;; *) echo "$1" ;; esac; }

# Builds Outlast, then runs the script again as root of network, mount and process namespaces of its own. Arguments: the
# programs it needs.
enter_namespaces() {
    [ -z "${OUTLAST_INSIDE:-}" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "needs root: it makes network namespaces"
    [ -c /dev/net/tun ] || fail "there is no /dev/net/tun here (modprobe tun)"
    "$top/scripts/needs" "$@"
    if [ -z "${OUTLAST:-}" ]; then
        command -v cargo > /dev/null || fail "no Rust toolchain: install the stable one with rustup, then run this again"
        say "Building Outlast (some minutes, the first time) ..."
        (cd "$top" && cargo build --release --locked --quiet)
        OUTLAST=${CARGO_TARGET_DIR:-$top/target}/release/outlast
    fi
    export OUTLAST OUTLAST_INSIDE=1
    # The process namespace ends with this script, together with all its processes.
    exec unshare --net --mount --pid --fork --mount-proc --kill-child "$0" "${arguments[@]}"
}

# Sets `dir` to a new tmpfs of the given size in MiB, and `nvram` to the directory of the logs; both are removed at the
# script's end.
make_tmpfs() {
    local need_mib=$1 free_mib
    free_mib=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    [ "$free_mib" -ge "$need_mib" ] || fail "$free_mib MiB of memory are free; $need_mib are needed (or a smaller --size)"
    dir=$(mktemp -d "${TMPDIR:-/tmp}/outlast-$name.XXXXXX")
    # visible in this mount namespace only
    mount -t tmpfs -o "mode=711,size=${need_mib}m" "outlast-$name" "$dir"
    trap 'umount -l "$dir"; rmdir "$dir"' EXIT
    nvram=$dir
}

# Uses an account that every Debian has. Both servers act with its rights after its login, and it owns the shares.
make_account() {
    local share
    user=daemon
    password=$name-$RANDOM$RANDOM
    printf 'username = %s\npassword = %s\n' "$user" "$password" > "$dir/login"
    printf '[global]\n' > "$dir/client.conf"
    for share in "${shares[@]}"; do
        mkdir -p "$(share_path "$share")"
        chown -R "$user:" "$(share_path "$share")"
    done
    ip link set lo up
}

declare -A address
# The shares of both servers, by their names. "pub" is $dir/share; another one is the directory of its name in $dir.
shares=(pub)
# Further lines for Outlast's [server] and Samba's [global], and further tables for Outlast.
outlast_options= samba_options= outlast_more=

share_path() { if [ "$1" = pub ]; then echo "$dir/share"; else echo "$dir/$1"; fi; }

# Starts Outlast as users do. Arguments: its name here, the number of its network, its durability, nvram.size if it is
# not the default.
start_outlast() {
    local server=$1 net=10.77.$2 share
    ip tuntap add "tap$2" mode tap
    ip addr add "$net.2/24" dev "tap$2"
    ip link set "tap$2" up
    # Set by the route, because outside of the first network namespace the sysctl accepts only values that the machine's
    # administrator has allowed.
    ip route replace "$net.0/24" dev "tap$2" proto kernel scope link src "$net.2" ${congestion:+congctl "$congestion"} \
        || fail "this kernel has no congestion control '$congestion'; it has $(< /proc/sys/net/ipv4/tcp_available_congestion_control)"
    cat > "$dir/$server.toml" << TOML
[server]
name = "BENCH$2"
users_file = "$dir/users"
control_socket = "$dir/$server.sock"
$outlast_options

[network]
tap = "tap$2"
addresses = ["$net.1/24"]

[nvram]
path = "$nvram/$server.nvram"
size = "${4:-256MiB}"
durability = "$3"
sink = "$dir/$server.sink"
TOML
    for share in "${shares[@]}"; do
        printf '\n[[share]]\nname = "%s"\npath = "%s"\n' "$share" "$(share_path "$share")" >> "$dir/$server.toml"
    done
    [ -z "$outlast_more" ] || printf '\n%s\n' "$outlast_more" >> "$dir/$server.toml"
    if [ ! -e "$dir/users" ]; then
        echo "$password" | "$OUTLAST" user add "$user" --password-stdin --config "$dir/$server.toml" > /dev/null
    fi
    "$OUTLAST" serve --config "$dir/$server.toml" > "$dir/$server.log" 2>&1 &
    address[$server]=$net.1
}

congestion_control() { echo "${congestion:-$(< /proc/sys/net/ipv4/tcp_congestion_control)}"; }

# Starts Samba in a second network namespace behind a veth pair, independent of the machine's own Samba.
start_samba() {
    unshare --net sleep infinity &
    local holder=$! tries=0 share
    until [ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "no second network namespace"
        sleep 0.02
    done
    ip link add client0 type veth peer name samba0 netns "$holder"
    ip addr add 10.78.0.2/24 dev client0
    ip link set client0 up
    local within=(nsenter "--net=/proc/$holder/ns/net")
    "${within[@]}" ip link set lo up
    "${within[@]}" ip addr add 10.78.0.1/24 dev samba0
    "${within[@]}" ip link set samba0 up
    mkdir -m 755 "$dir/samba"
    mkdir "$dir"/samba/{private,lock,state,cache,pid,ncalrpc}
    cat > "$dir/samba/conf" << CONF
[global]
netbios name = SAMBA
server role = standalone server
disable netbios = yes
smb ports = 445
interfaces = 10.78.0.1/24
bind interfaces only = yes
private dir = $dir/samba/private
passdb backend = tdbsam:$dir/samba/private/passdb.tdb
lock directory = $dir/samba/lock
state directory = $dir/samba/state
cache directory = $dir/samba/cache
pid directory = $dir/samba/pid
ncalrpc dir = $dir/samba/ncalrpc
log file = $dir/samba/log
usershare path =
load printers = no
disable spoolss = yes
printcap name = /dev/null
$samba_options
CONF
    for share in "${shares[@]}"; do
        printf '\n[%s]\npath = %s\nread only = no\n' "$share" "$(share_path "$share")" >> "$dir/samba/conf"
    done
    printf '%s\n%s\n' "$password" "$password" | pdbedit -s "$dir/samba/conf" -a -t -u "$user" > "$dir/samba/pdbedit.log" 2>&1 \
        || fail "pdbedit: $(tail -1 "$dir/samba/pdbedit.log")"
    "${within[@]}" smbd -F --no-process-group -s "$dir/samba/conf" > "$dir/samba.log" 2>&1 &
    address[samba]=10.78.0.1
}

# Runs one smbclient process. Arguments: its name, the server, its timeout in seconds, its options; its commands are
# read from stdin. Its output is in `$dir/NAME.log`. Fails if it, or the server, reports an error.
client() {
    local log=$dir/$1.log server=$2 seconds=$3 status=0
    shift 3
    timeout --foreground "$seconds" smbclient -s "$dir/client.conf" -p 445 -A "$dir/login" \
        "//${address[$server]}/${shares[0]}" "$@" > "$log" 2>&1 || status=$?
    [ "$status" -eq 0 ] && ! grep -aq NT_STATUS "$log"
}

# Runs a timed session. Arguments: its name, the server, its options, the commands before the timed ones, the timed
# ones. The times just before and just after them are in the files NAME.begun and .ended.
session() {
    local options
    read -r -a options <<< "$3"
    client "$1" "$2" 300 -t 120 "${options[@]}" <<< "$4"$'\n'"!date +%s%N > $dir/$1.begun"$'\n'"$5"$'\n'"!date +%s%N > $dir/$1.ended"
}

# Prints the microseconds that the session of this name took.
took() { echo $((($(< "$dir/$1.ended") - $(< "$dir/$1.begun")) / 1000)); }

# Prints the last line of output of the session of this name.
last_words() { grep -a . "$dir/$1.log" | tail -1 || true; }

await() {
    local tries=0
    until session first "$1" '-m SMB3_11' '' pwd; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "$1 does not answer: $(tail -qn 2 "$dir/$1.log" "$dir/first.log" | tr '\n' ' ')"
        sleep 0.1
    done
}

# Runs many sessions at once, which begin when all have logged in. Arguments: their number, the server, options; then
# two commands that print, for the number of a client, its first commands and its timed ones. The sessions are called
# crowd.1 and so on. Returns the number of failures.
crowd() {
    local clients=$1 server=$2 options=$3 first=$4 timed=$5 number failures=0 pids=() tries=0
    local gate="!touch $dir/crowd.ready.\$n; for i in \$(seq 6000); do [ -e $dir/crowd.go ] && break; sleep 0.01; done"
    rm -f "$dir"/crowd.*
    for number in $(seq "$clients"); do
        session "crowd.$number" "$server" "$options" "$("$first" "$number")"$'\n'"${gate//\$n/$number}" "$("$timed" "$number")" &
        pids+=($!)
    done
    until [ "$(find "$dir" -maxdepth 1 -name 'crowd.ready.*' | wc -l)" -eq "$clients" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || break
        sleep 0.1
    done
    touch "$dir/crowd.go"
    for number in "${pids[@]}"; do
        wait "$number" || failures=$((failures + 1))
    done
    return "$failures"
}

# The repairs of the client kernel's TCP: counters of this network namespace, which start at 0.
counters=(TcpRetransSegs TcpExtTCPTimeouts TcpExtTCPSACKReneging TcpExtTCPFastRetrans)
kernel_counters() { nstat -asz "${counters[@]}" | awk -v want="${counters[*]}" '
    { value[$1] = $2 }
    END { n = split(want, names, " "); for (i = 1; i <= n; i++) printf "%d ", value[names[i]]; print "" }'; }

# Prints the current worker's process id.
worker() { "$OUTLAST" status --json --config "$dir/$1.toml" 2> /dev/null | sed -n 's/.*"worker_pid": *\([0-9]*\).*/\1/p'; }
