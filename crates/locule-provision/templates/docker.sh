#!/usr/bin/env bash
# Runs this kit in a container, on the network of this machine; `-d` in the background. MY_DATA_DIR is what
# it finds, read-only, as /data. GPU2USE is passed on, such as --gpus=all.
KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
[[ "$1" == "-d" ]] && HOW=(-d) || HOW=(-i)
[[ -n "$MY_DATA_DIR" ]] && HOW+=(-v "$MY_DATA_DIR:/data/:ro")
exec docker run --rm "${HOW[@]}" $GPU2USE -u "$(id -u):$(id -g)" --net=host --ipc=host \
  -v "$KIT:/workspace/" -w /workspace/ @IMAGE@ @PROGRAM@@COMMAND@
