# `make demo` shows what ringlb does. `make test` runs all tests. Both do their own set-up on Debian with cargo.

.PHONY: demo test test-packages test-kernel compare-balancers lint build

demo:
	cargo build --release --bins
	target/release/ringlb demo

# Installs what the tests drive (nginx, iperf3, strace, …), if it is missing and this is root; then builds every binary,
# as the tests of one crate run those of the others.
test: test-packages
	cargo build --bins
	cargo nextest run --workspace --no-fail-fast
	cargo test --doc --workspace

test-packages:
	scripts/install-test-packages

# The demo and the ring's tests on the stock kernel of Debian 12, in a virtual machine.
test-kernel:
	scripts/test-kernel

# Docker's own balancer and ringlb in its place, side by side, on the same kernel in a virtual machine.
compare-balancers:
	scripts/compare-balancers

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

build:
	cargo build --release --bins
