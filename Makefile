# `make demo` shows what ringlb does. `make test` runs all tests. Both do their own set-up on Debian with cargo.

.PHONY: demo test test-packages test-kernel compare-balancers bench bench-smoke lint build

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

# ringlb, HAProxy, nginx, Envoy, the kernel's address translation and no balancer, side by side: about an hour. The
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

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

build:
	cargo build --release --bins
