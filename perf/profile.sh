#!/usr/bin/env bash
# What the profiling scripts share; to be sourced after perf/common.sh, in the project's root. Each looks at one consumer from
# outside: what that needs, a build whose frames have names, and traffic that begins when the recorder does.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/millpond

need_perf() {
    command -v perf >/dev/null || die "perf is missing: apt-get install linux-perf"
    local paranoid
    paranoid=$(cat /proc/sys/kernel/perf_event_paranoid)
    ((paranoid <= 1 || EUID == 0)) || die "perf may not be used: sysctl kernel.perf_event_paranoid=1"
}

need_inferno() {
    inferno=$cache/inferno/bin
    [[ -x $inferno/inferno-flamegraph ]] || die "inferno is missing: cargo install inferno --root $cache/inferno"
}

have_counters() { ! perf stat -e cycles true 2>&1 | grep -q 'not supported'; }

# In a directory of its own, since the flags differ.
build_profile() {
    export CARGO_TARGET_DIR=$cache/profile
    export RUSTFLAGS='-C force-frame-pointers=yes -C link-arg=-Wl,--no-rosegment'
    export CFLAGS='-fno-omit-frame-pointer -g1' CXXFLAGS='-fno-omit-frame-pointer -g1'
    build_program
}

# A consumer that is ready, and has applied messages: threads and connections are there, rows too, code and caches are warm.
start_consumer() { # SINK ROWS
    start_services
    trap end_profile EXIT
    make_topic profile 12
    export MILLPOND_KAFKA_INCARNATION=$incarnation
    say "warming up"
    "$millpond" run --config "$dir/profile.toml" --sink "$1" --set telemetry.applied_sample=0 >"$dir/run.out" 2>"$dir/run.log" &
    consumer=$!
    address=$(python3 perf/ready.py run "$dir/run.log") || { cat "$dir/run.log" >&2; die "the consumer does not start"; }
    sent=0
    send $(($2 * 3)) "$2"
    wait_applied
    sql 'VACUUM ANALYZE subscription'
    sql CHECKPOINT
}

send() { # MESSAGES ROWS [OPTION]...
    load profile "$@" 2>"$dir/log" || { cat "$dir/log" >&2; die "the load failed"; }
    sent=$((sent + $1))
}

# Asks seldom, since the answers are the consumer's work too.
wait_applied() {
    python3 perf/ready.py applied "$address" "$sent" || { tail -n 20 "$dir/run.log" >&2; die "the messages are not applied"; }
}

# Traffic, and a recorder that sees nothing else. Without a rate the consumer stands still (SIGSTOP) until all of it is in the
# topic, so that it is as fast as it can.
record_traffic() { # MESSAGES ROWS RATE|'' COMMAND...
    if [[ -n $3 ]]; then
        start_recorder "${@:4}"
        send "$1" "$2" --rate "$3"
    else
        kill -STOP "$consumer"
        send "$1" "$2"
        start_recorder "${@:4}"
        kill -CONT "$consumer"
    fi
    wait_applied
    kill -INT "$recorder"
    wait "$recorder" || true
    recorder=
}

# perf needs a moment to look at all threads.
start_recorder() {
    "$@" 2>"$dir/recorder.log" &
    recorder=$!
    sleep 2
    kill -0 "$recorder" 2>/dev/null || { cat "$dir/recorder.log" >&2; die "failed: $*"; }
}

end_consumer() {
    kill -TERM "$consumer"
    wait "$consumer" || { tail -n 20 "$dir/run.log" >&2; die "the consumer does not end as it should"; }
    consumer=
}

# Ends the processes before the services that they use; common.sh's cleanup does the rest.
end_profile() {
    local pid
    for pid in ${recorder:-} ${consumer:-}; do
        kill -CONT "$pid" 2>/dev/null || true
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    cleanup
}

# The roles, and what their threads' names begin with.
roles=(all poller workers librdkafka)
declare -A role=([all]='' [poller]=mp-poll [workers]=mp-w [librdkafka]=rdk:)

# Of OUT/all.folded: one for each role, drawn.
draw_roles() { # OUT TITLE [OPTION]...
    local of
    for of in "${roles[@]}"; do
        [[ $of == all ]] || grep "^${role[$of]}" "$1/all.folded" >"$1/$of.folded" || true
        [[ ! -s $1/$of.folded ]] || "$inferno/inferno-flamegraph" --title "$of, $2" "${@:3}" <"$1/$of.folded" >"$1/$of.svg"
    done
}
