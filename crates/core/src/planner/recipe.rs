//! What exactly would run: the recipe a task is resolved to when it is accepted, and launched from ever after,
//! whatever the configuration says later (protocol section 5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::names::Digest;

/// Output cap and time-outs, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall clock from spawn, in seconds.
    pub timeout_s: u64,
    /// Longest silence, in seconds; 0 = off.
    pub silence_timeout_s: u64,
    /// An open tool call counts as output for so many seconds.
    pub tool_timeout_s: u64,
    /// Log cap in bytes.
    pub max_output_bytes: u64,
}

/// A profile, workspace and backend with every choice made. Money is in canonical text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Layout of this document.
    pub schema: u32,
    /// The receiver's profile.
    pub profile: String,
    /// Kind of agent.
    pub kind: String,
    /// Program and arguments; the request is never among them.
    pub argv: Vec<String>,
    /// Names of variables passed on from the service's environment.
    pub env: Vec<String>,
    /// Variables set to fixed values.
    pub set: BTreeMap<String, String>,
    /// The agent's permission mode, where its kind has one.
    pub permission_mode: Option<String>,
    /// Name of the workspace; none = a fresh one in the attempt's directory.
    pub workspace: Option<String>,
    /// Path of the workspace.
    pub workspace_path: Option<String>,
    /// Backend that runs it.
    pub backend: String,
    /// That backend's kind.
    pub backend_kind: String,
    /// How it is paid: `metered`, `subscription`, `free`.
    pub billing: String,
    /// What it may cost at most.
    pub ceiling_usd: Option<String>,
    /// What is set aside for it.
    pub estimate_usd: Option<String>,
    /// Limits of the run.
    pub limits: Limits,
    /// What the backend's machine costs, where it is paid by use.
    #[serde(default)]
    pub machine: Option<MachinePrice>,
    /// The hosted API that the agent calls.
    #[serde(default)]
    pub endpoint: Option<EndpointUse>,
    /// What the agent's models may do; none for commands, and in recipes of before there was a meter.
    #[serde(default)]
    pub models: Option<Models>,
    /// The node that the task is forwarded to: nothing of the above but the limits runs here then.
    #[serde(default)]
    pub forward: Option<String>,
    /// How many tasks its agent may send, those of its children included.
    #[serde(default)]
    pub fanout: u32,
}

/// What a second of a machine costs, and how much of it a task has. Rates are decimals with at most 12 places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachinePrice {
    /// Dollars a second for the machine with its GPU.
    pub gpu_usd_per_s: String,
    /// Dollars a second for each virtual processor.
    pub vcpu_usd_per_s: String,
    /// Dollars a second for each GiB of memory.
    pub gib_usd_per_s: String,
    /// Seconds that are paid for after the work has ended.
    pub idle_tail_s: i64,
    /// Virtual processors.
    pub vcpus: i64,
    /// Memory in GiB.
    pub memory_gib: i64,
}

/// A hosted API, by what a run needs of it (policy section 4, egress).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointUse {
    /// Its name in the configuration.
    pub name: String,
    /// Its host: with the name, all that the audit says of it.
    pub host: String,
    /// Its address.
    pub base_url: String,
    /// The variable in which the agent finds the address.
    pub base_url_env: Option<String>,
    /// The variable that holds the secret; unset or empty, nothing starts.
    pub secret_env: String,
}

/// The models an agent may use, and how much of them at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// By name, the one it works with first; empty = as it chooses.
    pub allowed: Vec<String>,
    /// The longest answer, in tokens.
    pub output_tokens_max: u64,
    /// Requests it may have open at once.
    pub parallel_requests: u32,
}

/// Layout version of [`Recipe`].
pub const RECIPE_SCHEMA: u32 = 1;

impl Recipe {
    /// Digest of program and arguments as terms show it: SHA-256 over each argument followed by a NUL.
    #[must_use]
    pub fn argv_digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for argument in &self.argv {
            bytes.extend_from_slice(argument.as_bytes());
            bytes.push(0);
        }
        Digest::of(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(argv: &[&str]) -> Recipe {
        Recipe {
            schema: RECIPE_SCHEMA,
            profile: "shell".into(),
            kind: "command".into(),
            argv: argv.iter().map(|part| (*part).to_owned()).collect(),
            env: vec![],
            set: BTreeMap::new(),
            permission_mode: None,
            workspace: None,
            workspace_path: None,
            backend: "local".into(),
            backend_kind: "local".into(),
            billing: "free".into(),
            ceiling_usd: None,
            estimate_usd: None,
            limits: Limits {
                timeout_s: 600,
                silence_timeout_s: 0,
                tool_timeout_s: 1_800,
                max_output_bytes: 2_000_000,
            },
            machine: None,
            endpoint: None,
            models: None,
            forward: None,
            fanout: 0,
        }
    }

    #[test]
    fn a_recipe_of_before_there_were_other_backends_or_a_meter_is_still_read() {
        let text = serde_json::to_string(&recipe(&["a"])).unwrap();
        let before = text
            .replace(",\"machine\":null,\"endpoint\":null,\"models\":null,\"forward\":null,\"fanout\":0", "");
        assert_ne!(before, text);
        assert_eq!(serde_json::from_str::<Recipe>(&before).unwrap(), recipe(&["a"]));
    }

    #[test]
    fn arguments_cannot_be_moved_across_their_boundaries_under_one_digest() {
        assert_ne!(recipe(&["a", "b c"]).argv_digest(), recipe(&["a b", "c"]).argv_digest());
        assert_ne!(recipe(&["ab"]).argv_digest(), recipe(&["a", "b"]).argv_digest());
    }
}
