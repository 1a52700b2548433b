//! A stand-in for a model's API on loopback: Anthropic's messages, streamed, as real agents ask for them.
//!
//! What it answers is chosen by the path of the base URL, so that any number of agents can be served at once and
//! nothing is kept between requests: `http://127.0.0.1:PORT/s/SCENARIO`, where the scenario is one of
//!
//! | scenario | what happens |
//! |---|---|
//! | `text` | one answer of text |
//! | `tool:NAME:JSON` | first a call of that tool with that input, then text |
//! | `loop` | a shell command in every turn, without end; each response is dear (1 000 000 tokens read) |
//! | `loop:TOKENS:TURNS` | the same with so many tokens read in each response, and text after so many turns |
//! | `wall:UNIX` | 429 with words of a limit that resets at that time; from then on one answer of text |
//! | `error:STATUS` | always that HTTP status, with an error of that kind |
//! | `mute` | the request is read and never answered |
//! | `stuck` | the response begins, then silence |
//! | `drop` | the connection is cut in the middle of the response |
//! | `long:BYTES` | one answer of so many bytes |
//!
//! percent-encoded where it holds anything but letters and digits ([`StandIn::base`] does that).

mod http;
mod messages;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What the model says where it says something.
pub const SAID: &str = "Hello from the stand-in. Done.";

/// A running stand-in; it stops with this value.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    seen: Mutex<Receiver<Value>>,
}

impl StandIn {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> io::Result<StandIn> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (tell, seen) = channel();
        let stop = Arc::clone(&stopped);
        thread::spawn(move || accept(&listener, &stop, &tell));
        Ok(StandIn { address, stopped, seen: Mutex::new(seen) })
    }

    /// The base URL of a scenario.
    #[must_use]
    pub fn base(&self, scenario: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        let encoded: String = scenario
            .bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        format!("http://{}/s/{encoded}", self.address)
    }

    /// The requests as they come: `{scenario, method, path, body}`. Ends never while the stand-in lives.
    pub fn seen(&self) -> impl Iterator<Item = Value> {
        std::iter::from_fn(|| self.seen.lock().ok()?.recv().ok())
    }

    /// The requests that have come since the last look.
    #[must_use]
    pub fn seen_so_far(&self) -> Vec<Value> {
        self.seen.lock().map_or_else(|_| Vec::new(), |seen| seen.try_iter().collect())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the listener, which then looks; where it is gone already, nothing is to be woken.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, stopped: &Arc<AtomicBool>, tell: &Sender<Value>) {
    for stream in listener.incoming() {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let (stopped, tell) = (Arc::clone(stopped), tell.clone());
        // A client that goes away in the middle is what several scenarios are about.
        thread::spawn(move || drop(serve(&stream, &stopped, &tell)));
    }
}

/// One request, one answer: the connection is closed behind it.
fn serve(stream: &TcpStream, stopped: &AtomicBool, tell: &Sender<Value>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(request) = http::read(stream)? else { return Ok(()) };
    let (scenario, route) = http::scenario(&request.path);
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    // Nobody may listen any more; the answer is given all the same.
    tell.send(json!({"scenario": scenario, "method": request.method, "path": route, "body": body})).ok();
    if request.method != "POST" {
        return http::answer(stream, if route == "/" { 200 } else { 404 }, &json!({}));
    }
    match route.as_str() {
        "/v1/messages" => messages::answer(stream, &scenario, &body, stopped),
        "/v1/messages/count_tokens" => http::answer(stream, 200, &json!({"input_tokens": 1_000})),
        _ => http::answer(stream, 404, &messages::error(404)),
    }
}
