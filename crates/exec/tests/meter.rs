//! What an agent spends while it runs, and what ends it: a program that speaks Claude Code's stream, line by line.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod lab;

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::money::Usd;
use dispatch_node::job::{AgentKind, CostBasis, Order, Outcome, OutcomeStatus, Presence};
use lab::{Lab, Running, ended, metering, reason, written};

const OPUS: &str = "claude-opus-5-5";

fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

/// A metered order with a ceiling of one dollar whose program is the shell script `script`.
fn order(lab: &Lab, script: &str) -> Order {
    let program = lab.scratch("claude");
    dispatch_testkit::bins::write_script(&program, &format!("#!/bin/sh\ncat > /dev/null\n{script}\n"));
    let mut order = lab.order_of(&[&program.display().to_string()]);
    order.kind = AgentKind::Claude;
    order.billing = Billing::Metered;
    order.ceiling_usd = Some(usd("1"));
    order.metering = Some(metering());
    order
}

fn start(id: &str, model: &str, input: u64) -> String {
    format!(
        r#"{{"type":"stream_event","event":{{"type":"message_start","message":{{"id":"{id}","model":"{model}","usage":{{"input_tokens":{input},"output_tokens":1}}}}}},"parent_tool_use_id":null,"api_message_id":"{id}"}}"#
    )
}

fn assistant(id: &str, model: &str, input: u64) -> String {
    format!(
        r#"{{"type":"assistant","message":{{"id":"{id}","model":"{model}","content":[],"stop_reason":null,"usage":{{"input_tokens":{input},"output_tokens":1}}}},"parent_tool_use_id":null}}"#
    )
}

fn end(id: &str, input: u64, output: u64) -> String {
    format!(
        r#"{{"type":"stream_event","event":{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"input_tokens":{input},"output_tokens":{output}}}}},"parent_tool_use_id":null,"api_message_id":"{id}"}}"#
    )
}

/// A whole response, as the agent tells it: three times over.
fn response(id: &str, input: u64, output: u64) -> String {
    let begun = format!("{}\n{}", start(id, OPUS, input), assistant(id, OPUS, input));
    format!("{begun}\n{}", end(id, input, output))
}

fn says(lines: &str) -> String {
    format!("cat <<'END'\n{lines}\nEND\n")
}

fn final_line(more: &str) -> String {
    format!(
        r#"{{"type":"result","subtype":"success","is_error":false,"session_id":"s","result":"done"{more}}}"#
    )
}

fn cost(outcome: &Outcome) -> Option<(String, CostBasis)> {
    outcome.cost.map(|cost| (cost.usd.to_string(), cost.basis))
}

fn metered(outcome: &Outcome) -> String {
    outcome.metered.as_ref().unwrap().usd.to_string()
}

#[test]
fn an_agent_is_ended_by_the_response_that_reaches_its_ceiling() {
    let lab = Lab::new();
    // Ten cents each: the tenth reaches the dollar, and nothing after it is asked for.
    let script: String = (0..9).map(|n| says(&response(&format!("m{n}"), 20_000, 1_000))).collect();
    let script = script + &says(&response("m9", 20_000, 1_000)) + "exec sleep 600";
    let job = lab.job(&order(&lab, &script));
    let outcome = Running::start(&job).outcome();
    assert_eq!(ended(&outcome), (OutcomeStatus::OverBudget, "over_budget"));
    assert!(outcome.reason.as_ref().unwrap().text.contains("$1 of $1"), "{:?}", outcome.reason);
    assert_eq!(metered(&outcome), "1");
    // It did not say itself what it cost, so nobody knows: its whole reservation is charged.
    assert_eq!(cost(&outcome), None);
    let near = job.read_near_ceiling().unwrap().unwrap();
    assert!(near.usd >= usd("0.8") && near.ceiling_usd == usd("1"), "{near:?}");
    assert_eq!(outcome.containment.unwrap().descendants_left, 0);
}

#[test]
fn the_input_of_a_response_counts_as_soon_as_it_begins() {
    let lab = Lab::new();
    let said = final_line("").replace("success", "error_during_execution");
    let script = format!(
        "trap '{}exit 0' INT\n{}while :; do sleep 0.05; done",
        says(&said).replace('\'', "\"").replace("cat <<\"END\"", "cat <<END"),
        says(&start("m", OPUS, 250_000)),
    );
    let outcome = lab.run(&order(&lab, &script));
    assert_eq!(ended(&outcome), (OutcomeStatus::OverBudget, "over_budget"));
    // Cut off: the rest of the answer is paid for, and may have been as long as one can be.
    assert_eq!(cost(&outcome), Some(("1.64".to_owned(), CostBasis::Derived)));
    assert_eq!(metered(&outcome), "1.00002");
}

#[test]
fn an_agent_that_spends_on_is_killed_at_once() {
    let lab = Lab::new();
    let script = format!(
        "trap '' INT TERM\n{}sleep 0.3\n{}while :; do sleep 600; done",
        says(&response("first", 250_000, 1)),
        says(&response("second", 250_000, 1)),
    );
    let running = Running::start(&lab.job(&order(&lab, &script)));
    let outcome = running.outcome_within(std::time::Duration::from_secs(5));
    assert_eq!(ended(&outcome), (OutcomeStatus::OverBudget, "over_budget"));
    assert_eq!(metered(&outcome), "2.00004");
}

const BILLED: &str = r#","total_cost_usd":0.1"#;

/// A first turn for ten cents, with its final line.
fn first_turn() -> String {
    says(&format!("{}\n{}", response("first", 20_000, 1_000), final_line(BILLED)))
}

#[test]
fn a_turn_after_the_final_line_is_metered_and_ended_at_the_ceiling() {
    let lab = Lab::new();
    let script = first_turn() + "sleep 0.3\n" + &says(&response("second", 250_000, 1)) + "exec sleep 600";
    let running = Running::start(&lab.job(&order(&lab, &script)));
    let outcome = running.outcome_within(std::time::Duration::from_secs(5));
    assert_eq!(ended(&outcome), (OutcomeStatus::OverBudget, "over_budget"));
    assert_eq!(outcome.final_text.as_deref(), Some("done"), "what it had answered is not lost");
    assert_eq!(cost(&outcome), Some(("1.10002".to_owned(), CostBasis::Derived)));
    assert_eq!(metered(&outcome), "1.10002");
}

#[test]
fn a_turn_after_the_final_line_is_charged_where_nothing_sums_it_up() {
    let lab = Lab::new();
    let outcome = lab.run(&order(&lab, &(first_turn() + &says(&response("second", 20_000, 1_000)))));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
    assert_eq!(cost(&outcome), Some(("0.2".to_owned(), CostBasis::Derived)));
    // Cut off in the second answer: that may have been as long as one can be.
    let lab = Lab::new();
    let outcome = lab.run(&order(&lab, &(first_turn() + &says(&start("second", OPUS, 20_000)))));
    assert_eq!(cost(&outcome), Some(("0.82".to_owned(), CostBasis::Derived)));
    // A request of which nothing came back: nobody knows.
    let lab = Lab::new();
    let requesting = r#"{"type":"system","subtype":"status","status":"requesting"}"#;
    let outcome = lab.run(&order(&lab, &(first_turn() + &says(requesting))));
    assert_eq!((cost(&outcome), metered(&outcome).as_str()), (None, "0.1"));
    // One that its own final line sums up is charged once.
    let lab = Lab::new();
    let second = format!("{}\n{}", response("second", 20_000, 1_000), final_line(r#","total_cost_usd":0.2"#));
    let outcome = lab.run(&order(&lab, &(first_turn() + &says(&second))));
    assert_eq!(cost(&outcome), Some(("0.2".to_owned(), CostBasis::Reported)));
}

fn of_subagent(line: &str, call: &str) -> String {
    line.replace("\"parent_tool_use_id\":null", &format!("\"parent_tool_use_id\":\"{call}\""))
}

fn asks(id: &str, calls: &[&str]) -> String {
    let calls: Vec<String> = calls
        .iter()
        .map(|call| format!(r#"{{"type":"tool_use","id":"{call}","name":"Task","input":{{}}}}"#))
        .collect();
    assistant(id, OPUS, 1_000).replace("\"content\":[]", &format!("\"content\":[{}]", calls.join(",")))
}

fn answers(call: &str) -> String {
    format!(
        r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"{call}","content":"x"}}]}},"parent_tool_use_id":null}}"#
    )
}

/// Runs what says `lines` and is then cut off by its ceiling.
fn cut_off(lines: &[String]) -> Outcome {
    let lab = Lab::new();
    let said = final_line(r#","total_cost_usd":0.01"#).replace("success", "error_during_execution");
    let script = format!(
        "trap '{}exit 0' INT\n{}while :; do sleep 0.05; done",
        says(&said).replace('\'', "\"").replace("cat <<\"END\"", "cat <<END"),
        says(&lines.join("\n")),
    );
    let mut order = order(&lab, &script);
    order.metering.as_mut().unwrap().parallel_requests = 3;
    let outcome = lab.run(&order);
    assert_eq!(ended(&outcome), (OutcomeStatus::OverBudget, "over_budget"));
    outcome
}

#[test]
fn a_subagents_answer_is_not_over_because_anothers_is() {
    let lines = [
        start("main", OPUS, 1_000),
        asks("main", &["one", "two"]),
        end("main", 1_000, 1),
        of_subagent(&response("a", 20_000, 1_000), "one"),
        of_subagent(&start("b", OPUS, 20_000), "two"),
        answers("one"),
    ];
    // The other one may have asked for more than was heard of.
    let with = |more: &[String]| cut_off(&[&lines[..], more].concat());
    assert_eq!(cost(&with(&[start("next", OPUS, 250_000)])), None);
    // Answered too, it is over, and only the last answer is open.
    let more = [answers("two"), start("next", OPUS, 250_000)];
    assert_eq!(cost(&with(&more)), Some(("1.82404".to_owned(), CostBasis::Derived)));
}

#[test]
fn a_subagents_own_tools_say_that_its_answer_is_over_and_nobody_elses() {
    let own = of_subagent(&answers("bash"), "one");
    let lines = [start("main", OPUS, 1_000), of_subagent(&start("a", OPUS, 1_000), "one"), own];
    let more = start("next", OPUS, 250_000);
    // Both answers of the main agent are open, the subagent's is not.
    assert_eq!(
        cost(&cut_off(&[&lines[..], &[more]].concat())),
        Some(("2.28802".to_owned(), CostBasis::Derived))
    );
}

#[test]
fn cumulative_figures_are_not_added_up() {
    let lab = Lab::new();
    // Told six times over, added up this would be more than the ceiling.
    let told = |id| format!("{}\n{}", response(id, 50_000, 100), assistant(id, OPUS, 50_000));
    let lines = format!("{}\n{}\n{}", told("a"), told("b"), told("a"));
    let model = r#"{"claude-opus-5-5":{"inputTokens":100000,"outputTokens":200,"costUSD":0.404}}"#;
    // The session was resumed: its total goes on from where it stopped.
    let own = format!(r#","total_cost_usd":7.5,"modelUsage":{{}},"model_usage_since_last_result":{model}"#);
    let outcome = lab.run(&order(&lab, &says(&format!("{lines}\n{}", final_line(&own)))));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
    assert_eq!(cost(&outcome), Some(("0.404".to_owned(), CostBasis::Reported)));
    assert_eq!((metered(&outcome).as_str(), outcome.usage.unwrap().output_tokens), ("0.404", 200));
}

#[test]
fn without_a_figure_of_its_own_the_meter_is_the_basis() {
    let lab = Lab::new();
    let lines = format!("{}\n{}", response("a", 100_000, 1_000), final_line(""));
    let outcome = lab.run(&order(&lab, &says(&lines)));
    assert_eq!(cost(&outcome), Some(("0.42".to_owned(), CostBasis::Derived)));
    // What the final line sums up and the stream did not show (a small request beside the run) counts too.
    let lab = Lab::new();
    let models = r#","modelUsage":{"claude-opus-5-5":{"inputTokens":100000,"outputTokens":1000},"claude-haiku-4-5-20251001":{"inputTokens":10000}}"#;
    let lines = format!("{}\n{}", response("a", 100_000, 1_000), final_line(models));
    let outcome = lab.run(&order(&lab, &says(&lines)));
    assert_eq!(cost(&outcome), Some(("0.43".to_owned(), CostBasis::Derived)));
}

#[test]
fn a_flat_plan_is_counted_and_never_ended_by_dollars() {
    for billing in [Billing::Subscription, Billing::Free] {
        let lab = Lab::new();
        let lines = format!("{}\n{}", response("a", 100_000_000, 1_000), final_line(""));
        let mut order = order(&lab, &says(&lines));
        order.billing = billing;
        let job = lab.job(&order);
        let outcome = Running::start(&job).outcome();
        assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
        assert_eq!(outcome.usage.unwrap().input_tokens, 100_000_000);
        assert_eq!(job.read_near_ceiling().unwrap(), None);
    }
}

#[test]
fn an_unknown_model_is_paid_at_the_dearest_rates_and_named() {
    let lab = Lab::new();
    let lines = format!("{}\n{}\n{}", start("a", "brand-new", 10_000), end("a", 10_000, 100), final_line(""));
    let outcome = lab.run(&order(&lab, &says(&lines)));
    assert_eq!(cost(&outcome), Some(("0.1575".to_owned(), CostBasis::Derived)));
    assert_eq!(outcome.metered.unwrap().unknown_models, ["brand-new"]);
}

#[test]
fn an_agent_is_told_its_model_its_answers_size_and_to_work_alone() {
    let lab = Lab::new();
    let seen = lab.scratch("seen");
    let script = format!("printf '%s\\n' \"$@\" > {0}.args; env > {0}.env", seen.display());
    lab.run(&order(&lab, &script));
    let args = written(&seen.with_extension("args"));
    let args: Vec<&str> = args.lines().collect();
    let value = |option: &str| args[args.iter().position(|arg| *arg == option).unwrap() + 1];
    assert_eq!((value("--model"), value("--max-budget-usd")), (OPUS, "1"));
    assert!(value("--disallowedTools").split(',').any(|tool| tool == "Task"));
    assert!(args.contains(&"--include-partial-messages"));
    let variables = written(&seen.with_extension("env"));
    for line in ["CLAUDE_CODE_MAX_OUTPUT_TOKENS=32000", "FORCE_PROMPT_CACHING_5M=1"] {
        assert!(variables.lines().any(|known| known == line), "{line}");
    }
    let lab = Lab::new();
    let seen = lab.scratch("seen");
    let script = format!("printf '%s\\n' \"$@\" > {0}.args; env > {0}.env", seen.display());
    let mut order = order(&lab, &script);
    order.metering.as_mut().unwrap().parallel_requests = 3;
    lab.run(&order);
    assert!(!written(&seen.with_extension("args")).contains("--disallowedTools"));
    let line = "CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS=2";
    assert!(written(&seen.with_extension("env")).lines().any(|known| known == line));
}

#[test]
fn what_is_paid_and_has_no_ceiling_or_no_prices_is_not_started() {
    let without: [fn(&mut Order); 3] = [
        |order| order.metering = None,
        |order| order.ceiling_usd = None,
        |order| order.metering.as_mut().unwrap().prices.clear(),
    ];
    for without in without {
        let lab = Lab::new();
        let mut order = order(&lab, "exit 0");
        without(&mut order);
        let job = lab.job(&order);
        let outcome = Running::start(&job).outcome();
        assert_eq!((outcome.status, reason(&outcome)), (OutcomeStatus::Error, "cannot_start"));
        assert!(!outcome.spawned);
        assert_eq!(job.started().unwrap(), Presence::Absent);
    }
}
