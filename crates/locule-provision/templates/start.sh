#!/usr/bin/env bash
# Runs this kit in the background and starts it again when it dies. End it with stop_fl.sh.
DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$DIR/sub_start.sh" "$@" &
