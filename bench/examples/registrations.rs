//! Prints the figures of [`homeport_bench::registrations`]: `speed NODES SECONDS`
//! or `memory BINDINGS [RENEWALS]`; or, for who counts instructions, does nothing but
//! register: `rounds NODES RENEWALS`. `compare NODES OTHERS RENEWALS` registers two kinds by
//! turns. `subscribers NODES` loads a file of them.
//! NODES and BINDINGS may be written as `N/M`: N sessions, M of each NAI.

use homeport_bench::registrations::{self, Population};

fn population(text: &str) -> anyhow::Result<Population> {
    let (nodes, per_nai) = text.split_once('/').map_or((text, None), |(n, m)| (n, Some(m)));
    Ok(Population { nodes: nodes.parse()?, per_nai: per_nai.map(str::parse).transpose()? })
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["speed", nodes, seconds] => {
            println!("{:#?}", registrations::in_process(population(nodes)?, seconds.parse()?)?);
        }
        ["rounds", nodes, renewals] => {
            registrations::rounds(population(nodes)?, renewals.parse()?)?;
        }
        ["compare", nodes, others, renewals] => {
            let both = [population(nodes)?, population(others)?];
            let registrations::Compared { new, renewals, all } =
                registrations::compared(both, renewals.parse()?)?;
            for (what, [one, other]) in [("new", new), ("renewals", renewals), ("all", all)] {
                println!("{what:<9} {one:>9.0} {other:>9.0} a second; ratio {:.3}", other / one);
            }
        }
        ["subscribers", nodes] => {
            println!("{} s", homeport_bench::subscribers::load(nodes.parse()?)?);
        }
        ["memory", bindings] => println!("{:#?}", registrations::memory(population(bindings)?, 0)?),
        ["memory", bindings, renewals] => {
            println!("{:#?}", registrations::memory(population(bindings)?, renewals.parse()?)?);
        }
        _ => anyhow::bail!(
            "usage: registrations speed NODES SECONDS | rounds NODES RENEWALS | \
             compare NODES OTHERS RENEWALS | \
             memory BINDINGS [RENEWALS] | subscribers NODES"
        ),
    }
    Ok(())
}
