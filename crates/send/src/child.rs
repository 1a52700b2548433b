//! In the hands of a task's own agent: no configuration, no key; the watcher makes the child, as the agent's door allows.

use std::time::Duration;

use dispatch_core::policy::window::RunName;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::TaskResult;
use dispatch_node::clock;
use dispatch_node::document::Document;
use dispatch_node::job::door::{AgentSide, ChildWanted, DOOR_VARIABLE, Made};
use dispatch_node::report::{Exit, Form, Report, say, tell};
use dispatch_node::term::{Breaks, visible};
use dispatch_node::waiting::{self, Printed, Stopped, Stops, Without};

use crate::args::Cli;
use crate::choose::AUTO;
use crate::{task, wait};

/// How long the watcher may take for its word.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// From one look for the result to the next, at first and later.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LATER: Duration = Duration::from_millis(250);

/// Runs the command.
pub(crate) fn run(cli: &Cli, side: &AgentSide) -> Result<Exit, Report> {
    task::refuse_what_is_not_there(cli)?;
    refuse_what_is_not_an_agents(cli)?;
    let wanted = wanted(cli, task::read_request(cli)?)?;
    // From before the request on, so that stopping the command never leaves it between the two.
    let stops = cli.wait.then(Stops::listen);
    let made = side.ask(wanted, ANSWER_WAIT)?;
    if cli.common.form() == Form::Text && !cli.common.quiet {
        for note in &made.notes {
            tell(&visible(note, Breaks::Show));
        }
    }
    if let Some(stops) = stops {
        return wait_for(cli, side, &made, &stops);
    }
    match cli.common.form() {
        Form::Text => say(&format!("{}\t{}", made.task, made.inbox.display()))?,
        Form::Json => say(&document(&made).to_json())?,
    }
    Ok(Exit::Done)
}

fn document(made: &Made) -> Document {
    Document::child(&made.lane, made.task, made.expires, &made.inbox, &made.notes)
}

/// Refuses by name what belongs to a person at a node.
fn refuse_what_is_not_an_agents(cli: &Cli) -> Result<(), Report> {
    let asked = [
        (
            cli.common.config.is_some(),
            "--config",
            "the watcher of this node sends it, by its own configuration",
        ),
        (cli.from.is_some(), "--from", "the watcher of this node sends it, in this node's name"),
        (cli.to == AUTO, "--to auto", "name the node"),
        (cli.force, "--force", "a peer that is full is sent nothing from within a task"),
        (cli.callback.is_some(), "--callback", "--wait waits for the answer"),
        (cli.follow, "--follow", "--wait alone waits for the answer"),
        (cli.accept_unverified, "--accept-unverified", "only a sealed answer ends the waiting"),
    ];
    match asked.into_iter().find(|(asked, ..)| *asked) {
        Some((_, option, instead)) => {
            Err(Report::new(Exit::Usage, format!("{option} is not for a task that sends a task")).help(
                format!("{instead} ({DOOR_VARIABLE} says that a task runs here; outside one, unset it)"),
            ))
        }
        None => Ok(()),
    }
}

fn wanted(cli: &Cli, request: String) -> Result<ChildWanted, Report> {
    let to = NodeName::new(&cli.to).map_err(|error| Report::of(Exit::Usage, &error).while_doing("--to"))?;
    let run = cli.run.as_deref().map(RunName::new).transpose();
    Ok(ChildWanted {
        profile: cli.profile.clone(),
        workspace: cli.workspace.clone(),
        priority: cli.priority,
        require_ack: cli.require_ack,
        require_dangerous: cli.dangerous,
        timeout_s: cli.timeout,
        silence_timeout_s: cli.silence,
        max_output_bytes: cli.max_output,
        max_cost_usd: cli.max_cost,
        run: run.map_err(|error| Report::of(Exit::Usage, &error).while_doing("--run"))?,
        needs_tool: cli.needs_tool.clone(),
        needs_vram_gb: cli.needs_vram,
        needs_image: cli.needs_image.clone(),
        allow_sdk: cli.allow_sdk,
        max_attempts: cli.max_attempts,
        expires_ms: cli.expires.map(|expires| i64::try_from(expires.as_millis()).unwrap_or(i64::MAX)),
        labels: cli.label.iter().cloned().collect(),
        fanout: cli.fanout,
        budget_usd: cli.budget,
        ..ChildWanted::new(to, request)
    })
}

/// Waits for the result that the watcher lays down once it believes it.
fn wait_for(cli: &Cli, side: &AgentSide, made: &Made, stops: &Stops) -> Result<Exit, Report> {
    if !cli.common.quiet && cli.common.form() == Form::Text {
        tell(&format!("sent {}", made.task));
    }
    let mut pause = LOOK_FIRST;
    loop {
        // Before the look: an answer that comes at the last moment is seen by the look after it.
        let over = clock::now() >= made.answer_by;
        if let Some(bytes) = side.result(made.task)? {
            return answered(cli, made, &bytes);
        }
        if over {
            return without(cli, made, &Without::no_answer(&made.lane.to));
        }
        if stops.within(pause) == Stopped::Yes {
            return without(cli, made, &Without::interrupted_child());
        }
        pause = pause.saturating_mul(2).min(LOOK_LATER);
    }
}

fn answered(cli: &Cli, made: &Made, bytes: &[u8]) -> Result<Exit, Report> {
    let Ok(result) = TaskResult::from_stored(bytes) else {
        return without(cli, made, &Without::unverified("malformed"));
    };
    if result.task != made.task {
        return without(cli, made, &Without::unverified("id_mismatch"));
    }
    let exit = waiting::exit_of(result.status);
    match cli.common.form() {
        Form::Text => wait::print_answer(cli, &result, exit, Printed::Nothing),
        Form::Json => say(&document(made).answered(&result, bytes).to_json()).map(|()| exit),
    }
}

fn without(cli: &Cli, made: &Made, without: &Without) -> Result<Exit, Report> {
    match cli.common.form() {
        Form::Text => Err(without.report(made.task)),
        Form::Json => say(&document(made).without_result(without.word, &without.reason).to_json())
            .map(|()| without.exit),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn cli(words: &[&str]) -> Cli {
        Cli::try_parse_from(["dispatch-send", "--request", "x"].into_iter().chain(words.iter().copied()))
            .unwrap()
    }

    #[test]
    fn what_belongs_to_a_person_at_a_node_is_refused_by_name() {
        for words in [
            &["--to", "b", "--config", "/x"][..],
            &["--to", "b", "--from", "a"],
            &["--to", "auto"],
            &["--to", "b", "--force"],
            &["--to", "b", "--callback", "notify"],
            &["--to", "b", "--wait", "--follow"],
            &["--to", "b", "--wait", "--accept-unverified"],
        ] {
            let report = refuse_what_is_not_an_agents(&cli(words)).unwrap_err();
            assert_eq!(report.exit(), Exit::Usage, "{words:?}");
            assert!(report.help_text().unwrap().contains(DOOR_VARIABLE), "{words:?}");
        }
        refuse_what_is_not_an_agents(&cli(&["--to", "b", "--wait", "--raw", "--json"])).unwrap();
    }

    #[test]
    fn every_other_option_reaches_the_watcher() {
        let words = [
            "--to",
            "b",
            "--profile",
            "p",
            "--workspace",
            "w",
            "--priority",
            "high",
            "--timeout",
            "2m",
            "--silence",
            "1m",
            "--max-output",
            "2000",
            "--max-cost",
            "0.5",
            "--run",
            "r",
            "--require-ack",
            "--dangerous",
            "--allow-sdk",
            "--max-attempts",
            "2",
            "--expires",
            "1h",
            "--label",
            "k=v",
            "--needs-vram",
            "8",
            "--needs-tool",
            "t",
            "--needs-image",
            "i",
            "--fanout",
            "3",
            "--budget",
            "1.5",
        ];
        let wanted = wanted(&cli(&words), "x".into()).unwrap();
        let json = serde_json::to_string(&wanted).unwrap();
        assert_eq!(
            json,
            r#"{"to":"b","request":"x","profile":"p","workspace":"w","priority":"high","require_ack":true,"require_dangerous":true,"timeout_s":120,"silence_timeout_s":60,"max_output_bytes":2000,"max_cost_usd":"0.5","run":"r","needs_tool":"t","needs_vram_gb":"8","needs_image":"i","allow_sdk":true,"max_attempts":2,"expires_ms":3600000,"labels":{"k":"v"},"fanout":3,"budget_usd":"1.5"}"#
        );
    }
}
