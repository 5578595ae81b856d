# Sourced by the scripts in the folders beside it: the cache and the helpers of the servers, and a keyed folder in it.
# shellcheck shell=bash

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../servers/common.sh"

clients=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
here=$(dirname "$(readlink -f "$0")")

# once FOLDER MAKE: calls the function MAKE with a scratch folder, which takes the name FOLDER only when it is complete.
# One process does it; others that want the same folder wait. Whatever MAKE prints goes to standard error.
once() {
  local lock
  [ ! -d "$1" ] || return 0
  exec {lock}> "$1.lock"
  flock "$lock"
  if [ ! -d "$1" ]; then
    scratch=$(mktemp -d "$1.XXXXXX")
    trap 'rm -rf "$scratch"; note "failed"' EXIT
    # Not in a condition, which would switch off the end at the first error in all that it calls.
    "$2" "$scratch" >&2
    trap - EXIT
    chmod 755 "$scratch"
    mv "$scratch" "$1"
  fi
  exec {lock}>&-
}

# digest FILE...: what names a folder that is made from these files.
digest() { cat "$@" | sha256sum | cut -c 1-12; }
