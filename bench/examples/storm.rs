//! Prints what a registration costs from end to end, and what a storm does.
//! `cargo run --release -p homeport-bench --example storm [SECONDS]`

use homeport_bench::storm::{end_to_end, storm};

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    for _ in 0..3 {
        println!("{:?}", end_to_end(10_000, seconds)?);
    }
    for factor in [1.0, 2.0, 5.0, 10.0] {
        let found = storm(10_000, factor, seconds)?;
        println!(
            "{factor}x: offered {:.1} times, accepted {:.2} of the peak: {found:?}",
            found.offered_per_s / found.peak_per_s,
            found.accepted_per_s / found.peak_per_s
        );
    }
    Ok(())
}
