# Functions for scripts/bench --uploads: many simultaneous uploads, and the client kernel's counters.

of_upload() { printf 'lcd %s' "$dir"; }
timed_upload() { echo "put source $1"; }

# Argument: MiB of each upload. Prints the table; fails if an upload fails, or if its data was changed.
measure_uploads() {
    local megabytes=$1 clients status=0 before after i number problem
    make_tmpfs $((33 * megabytes + 1024))
    mkdir "$dir/share"
    head -c "$((megabytes << 20))" /dev/urandom > "$dir/source"
    make_account
    start_outlast outlast 0 process
    await outlast
    printf '\n%s, %s cores, %s; uploads of %s MiB, congestion control %s\n\n' "$(date +%F)" "$(nproc)" "$("$OUTLAST" --version)" \
        "$megabytes" "$(congestion_control)"
    printf '| uploads | MiB/s, sum | slowest to fastest |'
    printf ' %s |' "${counters[@]}"
    printf '\n|--------:|-----------:|-------------------:|'
    for i in "${counters[@]}"; do printf '%s:|' "-${i//?/-}"; done
    printf '\n'
    for clients in 1 2 8 32; do
        problem=
        read -r -a before <<< "$(kernel_counters)"
        crowd "$clients" outlast '-m SMB3_11' of_upload timed_upload || problem="$? failed: $(last_words crowd.1)"
        read -r -a after <<< "$(kernel_counters)"
        for number in $(seq "$clients"); do
            cmp -s "$dir/source" "$dir/share/$number" || problem=${problem:-"the data of upload $number was changed"}
        done
        rm -f "$dir"/share/*
        if [ -n "$problem" ]; then
            status=1
            say "   $clients uploads: $problem"
            continue
        fi
        for number in $(seq "$clients"); do took "crowd.$number"; done | awk -v clients="$clients" -v mib="$megabytes" '
            { rate = mib * 1000000 / $1; sum += rate; if (!low || rate < low) low = rate; if (rate > high) high = rate }
            END { printf "| %7d | %10.0f | %18.2f |", clients, sum, low / high }'
        for i in "${!counters[@]}"; do
            printf " %${#counters[i]}d |" $((after[i] - before[i]))
        done
        printf '\n'
    done
    "$OUTLAST" stop --config "$dir/outlast.toml" > /dev/null || say "   outlast stop: exit $?"
    return "$status"
}
