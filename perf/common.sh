#!/usr/bin/env bash
# What the measuring scripts share; to be sourced in the project's root. Starts a broker and a tuned Postgres of its own, and
# removes them at the end.
set -euo pipefail

name=${0##*/}
# Scripts that share a module leave no compiled one beside it.
export PYTHONDONTWRITEBYTECODE=1
die() { echo "perf/$name: $*" >&2; exit 1; }
say() { echo "perf/$name: $*" >&2; }

build() {
    build_program
    build_benches raw_read direct_writer
}

# Sets a variable of each name.
build_benches() { # NAME...
    local each
    cargo bench --no-run --quiet "${@/#/--bench=}"
    for each; do printf -v "$each" %s "$(bench "$each")"; done
}

build_program() {
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/millpond/target}
    command -v python3 >/dev/null || die "python3 is missing: apt-get install python3"
    # Before this script is itself what the machine is busy with.
    environment=$(perf/environment --json)
    tests/install
    say "building"
    cargo build --release --quiet
    millpond=$CARGO_TARGET_DIR/release/millpond
}

# A path as the caller meant it, who was elsewhere before a script went to the project's root.
callers_path() { (cd "$OLDPWD" && realpath -m "$1"); }

bench() { find "$CARGO_TARGET_DIR/release/deps" -name "$1-*" -type f -executable -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2; }

cleanup() {
    [[ ! -e $dir/services/.services ]] || tests/services down "$dir/services" || true
    rm -rf "$dir"
}

# What runs in the background ends before the services that it uses.
end_jobs() {
    local job
    for job in $(jobs -p); do
        kill -TERM "$job" 2>/dev/null || true
        wait "$job" 2>/dev/null || true
    done
}

# Sets dir, and what the services' environment has.
start_services() { # [SHARDS]
    dir=$(mktemp -d "${TMPDIR:-/tmp}/millpond-$name.XXXXXX")
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 711 "$dir"
    tests/services up "$dir/services" --shards "${1:-1}" --tune
    # shellcheck source=/dev/null
    . "$dir/services/env"
}

# A configuration, its topic and its tables.
make_topic() { # TOPIC PARTITIONS
    cat >"$dir/$1.toml" <<END
[kafka]
brokers = "$MILLPOND_TEST_KAFKA"
topic = "$1"
group = "$1"
partitions = $2
dead_letter_topic = "perf.dlq"
[[shard]]
name = "a"
apps = "00-ff"
postgres = "$MILLPOND_TEST_POSTGRES"
workers = 4
[admin]
listen = "127.0.0.1:0"
END
    # Rows that came from another topic want a higher one.
    incarnation=$((incarnation + 1))
    MILLPOND_KAFKA_INCARNATION=$incarnation "$millpond" init --config "$dir/$1.toml" >/dev/null
}

load() { # TOPIC MESSAGES ROWS [OPTION]...
    "$millpond" load --config "$dir/$1.toml" --messages "$2" --rows "$3" "${@:4}" >/dev/null
}

sql() { psql -q -X -v ON_ERROR_STOP=1 "$MILLPOND_TEST_POSTGRES" -c "$1" >/dev/null; }

# Another database of the same server, made beforehand.
in_database() { # NAME COMMAND...
    local MILLPOND_TEST_POSTGRES=${MILLPOND_TEST_POSTGRES/dbname=millpond/dbname=$1}
    export MILLPOND_TEST_POSTGRES
    "${@:2}"
}

# Writes are measured on rows that are there, as most are in production. A raised incarnation makes the same messages new
# updates.
incarnation=1
lay_rows_in() { # TOPIC ROWS [SCENARIO [OPTION]...]
    say "laying the rows in"
    incarnation=$((incarnation + 1))
    MILLPOND_KAFKA_INCARNATION=$incarnation "$direct_writer" "$dir/$1.toml" --scenario "${3:-once}" --rows "$2" "${@:4}" >/dev/null 2>"$dir/log" || {
        cat "$dir/log" >&2
        die "the rows could not be laid in"
    }
}

# Microseconds of CPU that Postgres took so far, once nobody is connected.
postgres_cpu() { python3 perf/outside.py postgres-cpu "$MILLPOND_TEST_POSTGRES" "$(head -n 1 "$dir/services/postgres-0/data/postmaster.pid")"; }

# A new group reads from the start. Postgres' CPU is told beside the command's own.
written() { # NAME COMMAND...
    local before
    incarnation=$((incarnation + 1))
    sql 'VACUUM ANALYZE subscription'
    sql CHECKPOINT
    before=$(postgres_cpu)
    ran env "MILLPOND_KAFKA_INCARNATION=$incarnation" "MILLPOND_KAFKA_GROUP=$1-$incarnation" "${@:2}"
    line=$(python3 -c 'import json, sys
line = json.loads(sys.argv[1])
print(json.dumps(line | {"postgres_cpu_us_per_message": float(sys.argv[2]) / line["messages"]}))' "$line" "$(($(postgres_cpu) - before))")
    noted "$1"
}

record() { # NAME COMMAND...
    ran "${@:2}"
    noted "$1"
}

# Sets line, which is what the command prints.
ran() { # COMMAND...
    line=$("$@" 2>"$dir/log") || { cat "$dir/log" >&2; die "failed: $*"; }
}

# Keeps the line under that name, and says what it has.
noted() { # NAME
    keep "$1" "$line"
    say "$1: $(python3 -c 'import json, sys
line = json.loads(sys.argv[1])
of_postgres = line.get("postgres_cpu_us_per_message")
text = "{messages_per_s:.0f} messages/s, {cpu_us_per_message:.2f} us CPU a message" + (", Postgres {postgres_cpu_us_per_message:.2f}" if of_postgres else "")
print(text.format(**line))' "$line")"
}

keep() { # NAME JSON
    echo "{\"name\": \"$1\", \"line\": $2}" >>"$dir/lines"
}

# Medians and figures; perf/report.py says how a figure is written.
report() { # KEY=VALUE|FIGURE...
    python3 perf/report.py "$dir/lines" "environment=$environment" "kafka=4.1.0, one broker" \
        "postgres=one server, fillfactor 70, autovacuum off, synchronous_commit on" "$@"
}
