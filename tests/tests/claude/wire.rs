//! The stand-in itself, without any agent.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use dispatch_tests::api_stand_in::{SAID, StandIn};
use serde_json::{Value, json};

/// Posts a request to a scenario and yields all that comes back within the time.
fn post(api: &StandIn, scenario: &str, body: &Value, time: Duration) -> String {
    let base = api.base(scenario);
    let (host, path) = base.trim_start_matches("http://").split_once('/').unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(time)).unwrap();
    write!(
        stream,
        "POST /{path}/v1/messages?beta=true HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    // Silence and a cut connection are answers, too.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8(answer).unwrap()
}

fn streamed(api: &StandIn, scenario: &str, body: &Value) -> String {
    post(api, scenario, body, Duration::from_secs(10))
}

/// The data of each event.
fn events(answer: &str) -> Vec<Value> {
    answer.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

fn types(answer: &str) -> Vec<String> {
    let mut types: Vec<String> =
        events(answer).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    types.dedup();
    types
}

#[test]
fn a_text_is_streamed_event_by_event_and_the_request_is_seen() {
    let api = StandIn::start().unwrap();
    let answer = streamed(&api, "text", &json!({"stream": true, "model": "m", "messages": []}));
    assert!(answer.starts_with("HTTP/1.1 200 "));
    assert_eq!(
        types(&answer),
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let text: String = events(&answer).iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(text, SAID);
    let seen = api.seen_so_far();
    assert_eq!((&seen[0]["scenario"], &seen[0]["path"]), (&json!("text"), &json!("/v1/messages")));
}

#[test]
fn a_tool_is_called_once_and_the_loop_calls_without_end() {
    let api = StandIn::start().unwrap();
    let first =
        json!({"stream": true, "tools": [{"name": "Write"}], "messages": [{"role": "user", "content": "x"}]});
    let mut second = first.clone();
    second["messages"] = json!([{"role": "user", "content": [{"type": "tool_result"}]}]);
    let tool = r#"tool:Write:{"file_path":"/a b/c%2F"}"#;
    let answer = streamed(&api, tool, &first);
    let input =
        events(&answer).iter().find_map(|event| Some(event["delta"]["partial_json"].as_str()?.to_owned()));
    assert_eq!(input.as_deref(), Some(r#"{"file_path":"/a b/c%2F"}"#));
    assert!(answer.contains("\"tool_use\""));
    assert!(!streamed(&api, tool, &second).contains("\"tool_use\""));
    assert!(streamed(&api, "loop", &second).contains("\"tool_use\""));
}

#[test]
fn errors_silence_and_cuts_are_what_they_say() {
    let api = StandIn::start().unwrap();
    let request = json!({"stream": true, "messages": []});
    for (status, kind) in [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error")] {
        let answer = streamed(&api, &format!("error:{status}"), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(kind), "{answer}");
    }
    let short = Duration::from_millis(300);
    assert_eq!(post(&api, "mute", &request, short), "");
    assert_eq!(types(&post(&api, "stuck", &request, short)), ["message_start", "ping"]);
    let cut = streamed(&api, "drop", &request);
    assert!(cut.contains("content_block_delta") && !cut.contains("message_stop"));
}
