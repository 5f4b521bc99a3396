# What the clean-up scripts share: each step is a line and a command. Sourced, not run.
# Without --yes the commands are only shown. A step that fails (often because there is nothing to delete) stops none after
# it, and is told again at the end.
# shellcheck shell=bash

[ $# -eq 0 ] || [ "$*" = --yes ] || { echo "usage: $0 [--yes]" >&2; exit 2; }
really=${1:-}
failed=()

step() { # WHAT COMMAND...
    local what=$1
    shift
    printf '%s\n    %s\n' "$what" "$(printf '%q ' "$@")"
    if [ -n "$really" ] && ! "$@"; then
        failed+=("$what")
    fi
}

finish() { # WHAT STAYS
    echo
    if [ -z "$really" ]; then
        echo "Nothing was deleted: add --yes."
    elif [ ${#failed[@]} -gt 0 ]; then
        printf 'Not deleted, look above why:\n' >&2
        printf '    %s\n' "${failed[@]}" >&2
    fi
    echo "What stays, and costs: $1"
    [ ${#failed[@]} -eq 0 ]
}
