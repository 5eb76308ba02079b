# shellcheck shell=bash
# Sourced by the other scripts.

# working TEXT COMMAND…: runs COMMAND quietly and says every few seconds that it still works. If it fails, shows all
# that it said, and returns its status.
working() {
    local text=$1 started=$SECONDS said job status=0
    shift
    said=$(mktemp)
    echo "condafs: $text"
    "$@" >"$said" 2>&1 </dev/null &
    job=$!
    while kill -0 "$job" 2>/dev/null; do
        for _ in {1..20}; do
            sleep 0.2
            kill -0 "$job" 2>/dev/null || break 2
        done
        echo "    … $((SECONDS - started)) s"
    done
    wait "$job" || status=$?
    [ "$status" -eq 0 ] || cat "$said" >&2
    rm -f "$said"
    return "$status"
}
