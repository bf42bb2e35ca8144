#!/usr/bin/env bash
# The administrator's console of NVIDIA FLARE.
KIT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "$KIT/transfer"
exec python3 -m nvflare.fuel.hci.tools.admin -m "$KIT" -s fed_admin.json "$@"
