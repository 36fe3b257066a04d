# `make demo` shows what ringlb does. `make test` runs all tests. Both do their own set-up on Debian with cargo.

.PHONY: demo test test-packages test-kernel soak compare-balancers count-kernel-balancer bench bench-smoke scale lint build

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

# A node's long life with bad clients, bad backends, changes and times without descriptors: SOAK seconds, 20 minutes if not
# given. What was seen is in target/soak.json, too.
SOAK ?= 1200
soak:
	cargo build --release --bins
	RINGLB_SOAK=$(SOAK) RINGLB_SOAK_JSON="$(CURDIR)/target/soak.json" \
		cargo test --release -p ringlb --test system survival::soak -- --nocapture

# Docker's own balancer and ringlb in its place, side by side, on the same kernel in a virtual machine.
compare-balancers:
	scripts/compare-balancers

# What Docker's own balancer costs for each task that is added, on a real Engine in a virtual machine.
count-kernel-balancer:
	scripts/count-kernel-balancer

# ringlb, HAProxy, nginx, Envoy, the kernel's address translation and no balancer, side by side: about half an hour. The
# results are in target/bench/; BENCH takes further options, such as BENCH="--workloads w1 --rounds 5".
bench:
	scripts/install-bench-peers
	cargo build --release --bins
	PATH="$(CURDIR)/target/bench-peers/bin:$$PATH" \
		target/release/ringlb-load bench --json target/bench/bench.json --report target/bench $(BENCH)

# Whether ringlb has become slower, in less than two minutes: shows the figures, and judges nothing.
bench-smoke:
	cargo build --release --bins
	target/release/ringlb-load bench --workloads w1,w2-64,w3-8 --peers haproxy --rounds 3 --duration 2500ms \
		--warm-up 500ms --json target/bench-smoke/bench.json

# What ringlb costs by size, up to a million backends in one network and to 500 networks: about ten minutes. The results
# are in target/scale/.
scale:
	cargo build --release --bins
	target/release/ringlb-load scale --json target/scale/backends.json --report target/scale/backends \
		--steps 1x10x10,1x100x100,1x1000x100,1x2500x100,1x5000x100,1x7500x100,1x10000x100
	target/release/ringlb-load scale --json target/scale/networks.json --report target/scale/networks \
		--steps 1x10x10,100x10x10,200x10x10,300x10x10,400x10x10,500x10x10

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

build:
	cargo build --release --bins
