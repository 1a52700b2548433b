//! As much of HTTP/1.1 as agents speak.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

/// Largest body that is read.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Between two looks whether a silent scenario is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// Reads one; `None` where the client says nothing.
pub(super) fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut input = BufReader::new(stream);
    let first = line(&mut input)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let path = target.split(['?', '#']).next().unwrap_or_default().to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = line(&mut input)?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?,
            "transfer-encoding" => chunked = value.contains("chunked"),
            "expect" => (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => {}
        }
    }
    let body = if chunked { chunks(&mut input)? } else { exactly(&mut input, length)? };
    Ok(Some(Request { method: method.to_owned(), path, body }))
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(64 * 1024).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn exactly(input: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    input.take(length.min(BODY_BYTES_MAX)).read_to_end(&mut body)?;
    Ok(body)
}

fn chunks(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(input)?;
        let size = size.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        body.append(&mut exactly(input, size)?);
        line(input)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// The scenario of a path, and what is left of it.
pub(super) fn scenario(path: &str) -> (String, String) {
    let parts = path.strip_prefix("/s/").map(|rest| rest.split_once('/').unwrap_or((rest, "")));
    match parts {
        Some((scenario, rest)) => (decoded(scenario), format!("/{rest}")),
        None => ("text".to_owned(), path.to_owned()),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *byte == b'%');
        bytes.push(code.unwrap_or(*byte));
        rest = if code.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A whole answer.
pub(super) fn answer(mut stream: &TcpStream, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         request-id: req_stand_in\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The head of an answer that comes in events, up to the end of the connection.
pub(super) fn events(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
          request-id: req_stand_in\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    )
}

/// One event, named by its type.
pub(super) fn event(mut stream: &TcpStream, data: &Value) -> io::Result<()> {
    let name = data["type"].as_str().unwrap_or("message");
    let text = format!("event: {name}\ndata: {data}\n\n");
    write!(stream, "{:x}\r\n{text}\r\n", text.len())
}

/// The end of the events.
pub(super) fn events_end(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")
}

/// Says nothing until the client has gone or the stand-in stops.
pub(super) fn silence(mut stream: &TcpStream, stopped: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
