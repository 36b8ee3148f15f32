//! Prints what a registration costs from end to end, and what a storm does.
//! `cargo run --release -p homeport-bench --example storm [SECONDS [FACTOR…]]`: with factors,
//! only such storms.

use homeport_bench::storm::{end_to_end, storm};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let seconds = words.next().map_or(Ok(1.0), |text| text.parse())?;
    let mut factors = words.map(|text| text.parse()).collect::<Result<Vec<f64>, _>>()?;
    if factors.is_empty() {
        for _ in 0..3 {
            println!("{:?}", end_to_end(10_000, seconds)?);
        }
        factors = vec![1.0, 2.0, 5.0, 10.0];
    }
    for factor in factors {
        let found = storm(10_000, factor, seconds)?;
        println!(
            "{factor}x: offered {:.1} times, accepted {:.2} of the peak: {found:?}",
            found.offered_per_s / found.peak_per_s,
            found.accepted_per_s / found.peak_per_s
        );
    }
    Ok(())
}
