#!/usr/bin/env bash
# Ends the process of this kit within seconds, without a word to the server; it is not started again.
# Where there is time, shut it down from the administrator's console instead.
WORKSPACE="${NVFL_WORKSPACE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}"
touch "$WORKSPACE/shutdown.fl" && echo "asked to end"
