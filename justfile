# The things one does here. `just` lists them.

default:
    @just --list

# Everything that must hold before a change lands.
ci:
    .ci/run

# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests of the default tier.
test:
    cargo test

# One crate's tests.
test-of crate:
    cargo test -p {{crate}}

# Store a folder and look at it.
import folder file="pantry.larder":
    cargo run --release --bin larder -- import {{folder}} {{file}}
    cargo run --release --bin larder -- info {{file}}

# The measurements of the README.
bench *filter:
    cargo bench -p larder-benches -- {{filter}}

# The documents of the library.
doc:
    cargo doc --workspace --no-deps --open

# The tests that take longer: two hundred kills in each durability, three hundred processes without memory, a million messages, a
# hundred thousand commands of two replicas, a thousand files that no store wrote.
test-long:
    LARDER_LONG=1 cargo test -p larder-tests --test killed --test memory --test queue --test replicas
    LARDER_LONG=1 cargo test -p larder-tools --test hostile

# Crash images, rotten bits, fences, histories: what every change has to pass, in about five minutes.
crash-lab:
    cargo run --release -p larder-tests --bin crash_lab

# Every decoder under libFuzzer for so many seconds each.
fuzz seconds="30":
    tests/fuzz/run {{seconds}}

# So many schedules of larder's own locks for every scenario.
schedules count="10000":
    tests/schedules/run {{count}}

# Bugs planted one by one, and the tests that have to find them: about five minutes.
planted-bugs *name:
    cargo run --release -p larder-tests --bin planted_bugs -- {{name}}

# The same for so many seconds each.
crash-lab-long seconds="3600":
    cargo run --release -p larder-tests --bin crash_lab -- long {{seconds}}

# Everything that takes hours, one after the other: so many seconds for each stage of the lab and for each decoder, a million
# schedules of the locks, ten years of a store, the tests that take longer, all bugs, all small changes.
long seconds="3600":
    cargo run --release -p larder-tests --bin crash_lab -- long {{seconds}}
    tests/fuzz/run {{seconds}}
    tests/schedules/run 80000
    just soak 3650
    just test-long
    just planted-bugs
    for part in 0 1 2 3 4 5 6 7; do just mutants $part/8 || true; done

# So many days of a store with failures and losses of power, on a clock that is told the time: a year in half a minute.
soak days="365" seed="1":
    cargo run --release -p larder-tests --bin crash_lab -- soak {{days}} {{seed}}

# Small changes of the code of `format`, one by one, that its tests have to find: one of so many parts of them, in half an
# hour. It takes cargo-mutants.
mutants part="0/8":
    cargo mutants -p larder-format --shard {{part}} --sharding round-robin --timeout 60 -o target \
        --exclude-re 'impl .*(Display|Debug) for' -- --lib --tests
