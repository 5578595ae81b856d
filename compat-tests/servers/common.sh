# Sourced by the scripts beside it: where built servers are kept, how packages are installed, how failure is told.
# Everything lands in one cache folder, so that a second run finds it; remove the folder to start afresh.
# shellcheck shell=bash

set -euo pipefail

servers=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cache=${XDG_CACHE_HOME:-${HOME:?HOME or XDG_CACHE_HOME must be set}/.cache}/woodpecker
mkdir -p "$cache"

note() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
fail() { note "$*"; exit 1; }

# The comment block at the top of the calling script, as its help.
help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0" >&2; }

# as_root COMMAND...: what only root may do, through sudo where we are somebody else.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need COMMAND=PACKAGE...: install the Debian package of every command that is not on the PATH.
need() {
  local pair missing=()
  export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  for pair; do
    command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
  done
  install_packages "${missing[@]}"
}

# install_packages PACKAGE...: from Debian's archive; the package lists are fetched only when the first try fails.
install_packages() {
  [ $# -gt 0 ] || return 0
  command -v apt-get > /dev/null || fail "please install: $*"
  note "installing $*"
  exec 8> "$cache/apt.lock"
  flock 8
  local options=(-qq -y --no-install-recommends -o DPkg::Lock::Timeout=300)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" < /dev/null >&2 || {
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" < /dev/null >&2
  }
  exec 8>&-
}
