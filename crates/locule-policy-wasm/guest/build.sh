#!/bin/sh
# Builds comp_auth.wasm and its digest, with the same bytes in any Debian 13, whoever builds it and where:
#
#   apt-get install rustc cargo rust-llvm libstd-rust-dev-wasm32    (1.85.1+dfsg1-1+deb13u1)
#   cargo install --locked wasm-tools@1.247.0
#
# Other versions build it as well, and give other bytes.
set -eu
cd "$(dirname "$0")"
target=wasm32-unknown-unknown
# No path of the machine is to stand in the messages of panics.
CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=crates" \
    cargo build --release --locked --target "$target" --target-dir target
wasm-tools component new "target/$target/release/comp_auth.wasm" -o comp_auth.wasm
wasm-tools validate comp_auth.wasm
sha256sum comp_auth.wasm | tee comp_auth.wasm.sha256
