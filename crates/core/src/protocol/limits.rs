//! Every limit of the wire, in one place. Units come last; limits that depend on each other are checked here.

use crate::protocol::time::{DAY_MS, MINUTE_MS};

/// Largest task or result file, as it lies on the share (protocol section 1).
pub const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;
/// Largest file of every other kind.
pub const SMALL_ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Room that an envelope's own text may take around one payload and eight signatures.
const ENVELOPE_FRAME_BYTES: usize = 4 * 1024;
/// Largest payload that always fits an envelope of [`ENVELOPE_BYTES_MAX`]: base64 makes four bytes of three.
pub const PAYLOAD_BYTES_MAX: usize = (ENVELOPE_BYTES_MAX - ENVELOPE_FRAME_BYTES) / 4 * 3;
/// Most signatures of one envelope.
pub const SIGNATURES_MAX: usize = 8;
/// Most signatures of a heartbeat or boot record, which carry one for each peer.
pub const NODE_SIGNATURES_MAX: usize = 64;

/// Fewest characters of a pair key's text.
pub const PAIR_KEY_CHARS_MIN: usize = 32;
/// Smallest RSA key of an approver, in bits.
pub const RSA_BITS_MIN: usize = 3072;

/// Longest string where nothing else is said, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest list where nothing else is said.
pub const LIST_LEN_MAX: usize = 256;
/// Longest `run`, in bytes.
pub const RUN_BYTES_MAX: usize = 64;
/// Longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Longest time-out of a task, in seconds.
pub const TIMEOUT_S_MAX: u32 = 86_400;
/// Time-out of a task that names none, in seconds.
pub const TIMEOUT_S_DEFAULT: u32 = 600;
/// Smallest log cap a task may ask for.
pub const OUTPUT_BYTES_MIN: u64 = 1024;
/// Largest log cap a task may ask for.
pub const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Log cap of a task that names none.
pub const OUTPUT_BYTES_DEFAULT: u64 = 2_000_000;
/// Most attempts a task may allow.
pub const ATTEMPTS_MAX: u32 = 10;
/// Most acceptance checks of a task.
pub const CHECKS_MAX: usize = 16;
/// Most nodes a task may have come through.
pub const VIA_MAX: usize = 8;
/// Longest name of an attachment or artifact, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Most labels of a task.
pub const LABELS_MAX: usize = 32;
/// Longest key of a label, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 64;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Most reasons for a gate in one file of terms.
pub const GATE_REASONS_MAX: usize = 16;
/// Longest principal of an approver, in bytes.
pub const AUTHOR_BYTES_MAX: usize = 256;
/// Longest reason of a decision, in bytes.
pub const DECISION_REASON_BYTES_MAX: usize = 4 * 1024;
/// Longest final text of a result, in characters.
pub const FINAL_TEXT_CHARS_MAX: usize = 8_000;
/// Longest output tail of a result, in characters.
pub const OUTPUT_TAIL_CHARS_MAX: usize = 8_000;
/// Highest level of backpressure.
pub const BACKPRESSURE_LEVEL_MAX: u8 = 100;

/// How far ahead of the receiver's clock a message may have been made (the skew allowed).
pub const SKEW_MS: i64 = 5 * MINUTE_MS;
/// Longest life of a task, control or decision.
pub const LIFETIME_MS_MAX: i64 = 30 * DAY_MS;
/// Life of a task or decision that names no end.
pub const LIFETIME_MS_DEFAULT: i64 = DAY_MS;

const _: () = assert!(REQUEST_BYTES_MAX < PAYLOAD_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < ENVELOPE_BYTES_MAX);
const _: () = assert!(SMALL_ENVELOPE_BYTES_MAX < ENVELOPE_BYTES_MAX);
const _: () = assert!(SIGNATURES_MAX < NODE_SIGNATURES_MAX);
const _: () = assert!(LIFETIME_MS_DEFAULT <= LIFETIME_MS_MAX);
const _: () = assert!(TIMEOUT_S_DEFAULT <= TIMEOUT_S_MAX);
const _: () = assert!(OUTPUT_BYTES_MIN <= OUTPUT_BYTES_DEFAULT && OUTPUT_BYTES_DEFAULT <= OUTPUT_BYTES_MAX);
