//! The agent's environment: a fixed minimum, what the profile names, and nothing else of the service's own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use dispatch_node::agents::PATH_DEFAULT;
use dispatch_node::job::Order;
use dispatch_node::job::door::{DOOR_VARIABLE, TOKEN_VARIABLE};
use dispatch_node::tree::MARK_VARIABLE;

use crate::agent::Recipe;
use crate::launch::CannotStart;

/// Builds it from the executor's own variables, as `own` answers them.
///
/// An agent that may send tasks of its own finds its door, and what it shows there, in two of them; one that may not finds
/// where a door would be and nothing to show, whatever the executor's own environment says: `dispatch-send` then knows that
/// it is in a task, and refuses. Nothing set by a profile replaces a `DISPATCH_…` variable. There is no `DISPATCH_FROM` among them: the commands take that
/// as the name of the node that sends, and an agent may send tasks of its own.
pub(crate) fn build(
    order: &Order,
    door: &Path,
    recipe: &Recipe,
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<OsString, OsString>, CannotStart> {
    if let Some(name) = order.secrets.iter().find(|name| own(name).is_none_or(|value| value.is_empty())) {
        return Err(CannotStart::SecretMissing { name: name.clone() });
    }
    let or = |name: &str, default: &str| own(name).unwrap_or_else(|| default.into());
    let user = own("USER").or_else(|| own("LOGNAME"));
    let mut environment = BTreeMap::from([
        ("PATH".into(), or("PATH", PATH_DEFAULT)),
        ("HOME".into(), or("HOME", "/")),
        ("USER".into(), user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string().into())),
        ("LANG".into(), or("LANG", "C.UTF-8")),
        ("TERM".into(), "dumb".into()),
        ("TMPDIR".into(), or("TMPDIR", "/tmp")),
    ]);
    for name in &order.env {
        is_variable_name(name)?;
        environment.extend(own(name).map(|value| (name.into(), value)));
    }
    let set = order.set.iter().chain(recipe.set.iter().map(|(name, value)| (name, value)));
    for (name, value) in set {
        is_variable_name(name)?;
        environment.insert(name.into(), value.into());
    }
    let ours = [
        ("DISPATCH_TASK", order.task.to_string()),
        ("DISPATCH_SENDER", order.from.to_string()),
        ("DISPATCH_NODE", order.node.to_string()),
        ("DISPATCH_ATTEMPT", order.attempt.to_string()),
        ("DISPATCH_EPOCH", order.epoch.to_string()),
        (MARK_VARIABLE, order.mark.clone()),
    ];
    environment.extend(ours.map(|(name, value)| (name.into(), value.into())));
    environment.remove(&OsString::from(TOKEN_VARIABLE));
    // The agent works in a directory of its own.
    let door = std::path::absolute(door).unwrap_or_else(|_| door.to_owned());
    environment.insert(DOOR_VARIABLE.into(), door.into());
    if let Some(token) = &order.token {
        environment.insert(TOKEN_VARIABLE.into(), token.into());
        if let Some(path) = environment.get_mut(OsStr::new("PATH")) {
            reach_own_commands(path);
        }
    }
    Ok(environment)
}

/// Puts the directory of this very program last on a `PATH`: the agent finds `dispatch-send` there, as an installation has
/// it, and every other command where it found it before.
fn reach_own_commands(path: &mut OsString) {
    let Some(own) = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned)) else {
        return;
    };
    if std::env::split_paths(path).all(|known| known != own)
        && !own.as_os_str().as_encoded_bytes().contains(&b':')
    {
        path.push(":");
        path.push(own);
    }
}

fn is_variable_name(name: &str) -> Result<(), CannotStart> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(CannotStart::BadVariable { name: name.to_owned() });
    }
    Ok(())
}
