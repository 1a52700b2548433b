//! `POST /v1/messages`: the model's turn, streamed or whole.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{SAID, http};

/// Characters of one piece of text.
const PIECE_CHARS: usize = 6;
/// Pieces of a long text are longer.
const LONG_PIECE_BYTES: usize = 64 * 1024;

/// What a turn consists of.
enum Turn {
    Text(String),
    Tool(String, Value),
}

/// Answers one request of a scenario.
pub(super) fn answer(
    stream: &TcpStream,
    scenario: &str,
    request: &Value,
    stopped: &AtomicBool,
) -> io::Result<()> {
    let (kind, rest) = scenario.split_once(':').unwrap_or((scenario, ""));
    match kind {
        "error" => {
            let status = rest.parse().unwrap_or(500);
            return http::answer(stream, status, &error(status));
        }
        "mute" => return http::silence(stream, stopped),
        "wall" if now_s() < rest.parse().unwrap_or(0) => return http::answer(stream, 429, &wall(rest)),
        _ => {}
    }
    let turn = turn(kind, rest, request);
    let usage = usage(kind, rest);
    if request["stream"] != true {
        return http::answer(stream, 200, &whole(request, &turn, &usage));
    }
    http::events(stream)?;
    http::event(stream, &json!({"type": "message_start", "message": head(request, &usage)}))?;
    http::event(stream, &json!({"type": "ping"}))?;
    match kind {
        "stuck" => http::silence(stream, stopped),
        "drop" => {
            text_block(stream, "This answer has no", 1)?;
            stream.shutdown(Shutdown::Both)
        }
        _ => streamed(stream, &turn, &usage),
    }
}

/// An error in the provider's form.
pub(super) fn error(status: u16) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let message = format!("the stand-in answers {status}");
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_stand_in"})
}

/// An error in the words of a limit that resets at a unix time.
fn wall(resets_at: &str) -> Value {
    let mut error = error(429);
    error["error"]["message"] = json!(format!("Claude AI usage limit reached|{resets_at}"));
    error
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a loop reads in each response, and how many turns it takes.
fn loops(rest: &str) -> (u64, usize) {
    let (tokens, turns) = rest.split_once(':').unwrap_or((rest, ""));
    (tokens.parse().unwrap_or(1_000_000), turns.parse().unwrap_or(usize::MAX))
}

fn turn(kind: &str, rest: &str, request: &Value) -> Turn {
    // Agents ask small things beside the run (a title, a summary), without tools: these are answered with text.
    let has_tools = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    match kind {
        "tool" if has_tools && results(request) == 0 => {
            let (name, input) = rest.split_once(':').unwrap_or((rest, "{}"));
            Turn::Tool(name.to_owned(), serde_json::from_str(input).unwrap_or_else(|_| json!({})))
        }
        "loop" if has_tools && results(request) < loops(rest).1 => {
            let command = format!("echo turn {}", next_number());
            Turn::Tool("Bash".to_owned(), json!({"command": command, "description": "goes on"}))
        }
        "long" => Turn::Text("0123456789abcdef".chars().cycle().take(rest.parse().unwrap_or(0)).collect()),
        _ => Turn::Text(SAID.to_owned()),
    }
}

/// How often the agent has told what a tool said.
fn results(request: &Value) -> usize {
    let messages = request["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    blocks.into_iter().filter(|block| block["type"] == "tool_result").count()
}

fn usage(kind: &str, rest: &str) -> Value {
    let read = if kind == "loop" { loops(rest).0 } else { 100 };
    json!({"input_tokens": read, "cache_creation_input_tokens": 2_000, "cache_read_input_tokens": 3_000,
        "output_tokens": 1, "service_tier": "standard"})
}

fn head(request: &Value, usage: &Value) -> Value {
    json!({"id": format!("msg_stand_in_{}", next_number()), "type": "message", "role": "assistant",
        "model": request["model"], "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage})
}

fn whole(request: &Value, turn: &Turn, usage: &Value) -> Value {
    let mut message = head(request, usage);
    message["content"] = json!([block(turn)]);
    message["stop_reason"] = json!(stop_reason(turn));
    message["usage"]["output_tokens"] = json!(25);
    message
}

fn block(turn: &Turn) -> Value {
    match turn {
        Turn::Text(text) => json!({"type": "text", "text": text}),
        Turn::Tool(name, input) => {
            json!({"type": "tool_use", "id": format!("toolu_stand_in_{}", next_number()), "name": name, "input": input})
        }
    }
}

fn stop_reason(turn: &Turn) -> &'static str {
    match turn {
        Turn::Text(_) => "end_turn",
        Turn::Tool(..) => "tool_use",
    }
}

fn streamed(stream: &TcpStream, turn: &Turn, usage: &Value) -> io::Result<()> {
    match turn {
        Turn::Text(text) => {
            let piece = if text.len() > LONG_PIECE_BYTES { LONG_PIECE_BYTES } else { PIECE_CHARS };
            text_block(stream, text, piece)?;
        }
        Turn::Tool(_, input) => {
            let mut start = block(turn);
            start["input"] = json!({});
            http::event(stream, &json!({"type": "content_block_start", "index": 0, "content_block": start}))?;
            let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
            http::event(stream, &json!({"type": "content_block_delta", "index": 0, "delta": delta}))?;
        }
    }
    http::event(stream, &json!({"type": "content_block_stop", "index": 0}))?;
    let mut usage = usage.clone();
    usage["output_tokens"] = json!(25);
    let delta = json!({"stop_reason": stop_reason(turn), "stop_sequence": null});
    http::event(stream, &json!({"type": "message_delta", "delta": delta, "usage": usage}))?;
    http::event(stream, &json!({"type": "message_stop"}))?;
    http::events_end(stream)
}

/// A block of text in pieces, without its end.
fn text_block(stream: &TcpStream, text: &str, piece_chars: usize) -> io::Result<()> {
    let start = json!({"type": "text", "text": ""});
    http::event(stream, &json!({"type": "content_block_start", "index": 0, "content_block": start}))?;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(piece_chars).map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        let delta = json!({"type": "text_delta", "text": piece});
        http::event(stream, &json!({"type": "content_block_delta", "index": 0, "delta": delta}))?;
        rest = tail;
    }
    Ok(())
}

fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
