//! The stand-in for a model's API, for use by hand: prints where it listens, then one line for every request.
use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let api = dispatch_tests::api_stand_in::StandIn::start()?;
    println!("{}", api.base("text"));
    std::io::stdout().flush()?;
    for seen in api.seen() {
        println!("{seen}");
    }
    Ok(())
}
