//! `--dry-run`: what would be started.

use dispatch_node::job::{JobDir, passed_on};
use dispatch_node::report::{Exit, Report, say};

use crate::agent;
use crate::environment;

/// Prints the program, the names in its environment and the limits; no values, no request.
pub(crate) fn print(job: &JobDir) -> Result<Exit, Report> {
    let order = job.read_order().map_err(|error| Report::of(Exit::LocalIo, &error))?;
    let cannot = |error| Report::of(Exit::Config, &error);
    let recipe = agent::adapter(&order).and_then(|agent| agent.recipe(&order)).map_err(cannot)?;
    let environment = environment::build(&order, &job.door_path(), &recipe, passed_on).map_err(cannot)?;
    let names: Vec<_> = environment.keys().map(|name| name.to_string_lossy()).collect();
    let cwd = order.cwd.clone().unwrap_or_else(|| job.work_path());
    let limits = [
        ("timeout_s", order.timeout_s),
        ("silence_timeout_s", order.silence_timeout_s),
        ("tool_timeout_s", order.tool_timeout_s),
        ("max_output_bytes", order.max_output_bytes),
    ];
    say(&format!(
        "task         {} from {}, attempt {}, epoch {}",
        order.task, order.from, order.attempt, order.epoch
    ))?;
    // Debug form: control characters in an argument show as what they are.
    say(&format!("argv         {:?}", [&[recipe.program], recipe.args.as_slice()].concat()))?;
    say(&format!("directory    {:?}", cwd.display().to_string()))?;
    say(&format!("environment  {}", names.join(" ")))?;
    for (name, value) in limits {
        say(&format!("{name:<18} {value}"))?;
    }
    if let Some(ceiling) = order.ceiling_usd {
        say(&format!("ceiling_usd        {ceiling}"))?;
    }
    Ok(Exit::Done)
}
