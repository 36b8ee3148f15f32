//! Prints what a registration costs from end to end, and what a storm does.
//! `cargo run --release -p homeport-bench --example storm [SECONDS [FACTOR…]]`: with factors,
//! only such storms.

use homeport_bench::measure::Cores;
use homeport_bench::storm::{end_to_end, storm};

fn main() -> anyhow::Result<()> {
    // On two cores, where there are two.
    let two = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let cores = Cores { worker: two.then_some(1), control: two.then_some(0) };
    let mut words = std::env::args().skip(1);
    let seconds = words.next().map_or(Ok(1.0), |text| text.parse())?;
    let mut factors = words.map(|text| text.parse()).collect::<Result<Vec<f64>, _>>()?;
    if factors.is_empty() {
        for _ in 0..3 {
            println!("{:?}", end_to_end(10_000, seconds, cores)?);
        }
        factors = vec![1.0, 2.0, 5.0, 10.0];
    }
    for factor in factors {
        let found = storm(10_000, factor, seconds, cores)?;
        println!(
            "{factor}x: offered {:.1} times, accepted {:.2} of the peak: {found:?}",
            found.offered_per_s / found.peak_per_s,
            found.accepted_per_s / found.peak_per_s
        );
    }
    Ok(())
}
