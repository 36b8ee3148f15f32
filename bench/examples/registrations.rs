//! Prints the figures of [`homeport_bench::registrations`]: `speed NODES SECONDS`
//! or `memory BINDINGS [RENEWALS]`; or, for who counts instructions, does nothing but
//! register: `rounds NODES RENEWALS`. `subscribers NODES` loads a file of them.

use homeport_bench::registrations;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["speed", nodes, seconds] => {
            println!("{:#?}", registrations::in_process(nodes.parse()?, seconds.parse()?)?);
        }
        ["rounds", nodes, renewals] => {
            registrations::rounds(nodes.parse()?, renewals.parse()?)?;
        }
        ["subscribers", nodes] => {
            println!("{} s", homeport_bench::subscribers::load(nodes.parse()?)?);
        }
        ["memory", bindings] => println!("{:#?}", registrations::memory(bindings.parse()?, 0)?),
        ["memory", bindings, renewals] => {
            println!("{:#?}", registrations::memory(bindings.parse()?, renewals.parse()?)?);
        }
        _ => anyhow::bail!(
            "usage: registrations speed NODES SECONDS | rounds NODES RENEWALS | \
             memory BINDINGS [RENEWALS] | subscribers NODES"
        ),
    }
    Ok(())
}
