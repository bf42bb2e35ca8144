#!/usr/bin/env bash
# Asks the program of this kit to end in order; it is not started again.
KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
touch "$KIT/shutdown.fl"
if [[ -f "$KIT/pid.fl" ]] && kill -TERM "$(cat "$KIT/pid.fl")" 2>/dev/null; then
  echo "asked process $(cat "$KIT/pid.fl") to end"
else
  echo "nothing runs here"
fi
