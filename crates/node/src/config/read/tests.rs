use std::time::Duration;

use dispatch_core::policy::money::Usd;

use super::*;
use crate::config::{DEFAULT_FILE, Effective, PeerGate};

const MINIMAL: &str =
    "root = \"/s\"\nnode = \"a\"\nstate = \"/v\"\ncluster = \"00000000-0000-4000-8000-000000000000\"\n";

fn checked(text: &str) -> Result<Config, ConfigError> {
    check(Path::new("/etc/d/dispatch.toml"), text, &Environment::empty())
}

fn refused(more: &str) -> String {
    let error = checked(&format!("{MINIMAL}{more}")).unwrap_err();
    crate::report::Report::from(error).text(crate::term::Colour::Off)
}

#[test]
fn the_reference_holds_as_it_stands() {
    let config = check(Path::new("/d"), DEFAULT_FILE, &Environment::empty().with("HOME", "/h")).unwrap();
    assert_eq!(config.state.path(), Path::new("/h/.local/state/dispatch/gpubox"));
    assert!(config.killswitch.latch);
}

#[test]
fn every_key_of_the_reference_is_one_the_program_knows() {
    let shown = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let all: String = DEFAULT_FILE
        .lines()
        .map(|line| if shown(&line) { line.strip_prefix('#').unwrap() } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = checked(&all).unwrap();
    let from_file = |effective: &&Effective| matches!(effective.origin, Origin::Line(_));
    let keys = all.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert_eq!(config.effective.iter().filter(from_file).count(), keys);
    assert_eq!(config.budget.caps.run, Usd::ZERO);
}

#[test]
fn defaults_shown_in_the_reference_are_the_ones_that_hold() {
    let config = check(Path::new("/d"), DEFAULT_FILE, &Environment::empty().with("HOME", "/h")).unwrap();
    for effective in config.effective.iter().filter(|effective| effective.origin == Origin::Default) {
        let key = effective.key.rsplit('.').next().unwrap();
        if key == "state" || key == "kind" {
            continue;
        }
        let line = format!("#{key} = {}", effective.value);
        assert!(DEFAULT_FILE.lines().any(|known| known == line), "{line}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_and_its_line() {
    assert_eq!(
        refused("[exec]\nmax_paralel = 3\n"),
        "error: the configuration `/etc/d/dispatch.toml` line 6 does not hold: unknown key `exec.max_paralel`\nhelp: did you mean `max_parallel`?"
    );
    assert!(refused("[exe]\n").contains("did you mean `exec`?"));
}

#[test]
fn a_metered_profile_without_overshoot_is_refused() {
    let text = refused("[profile.x]\nagent = \"claude\"\nbilling = \"metered\"\n");
    assert!(text.contains("line 6") && text.contains("`profile.x.overshoot_usd` is missing"), "{text}");
}

fn metered(more: &str) -> String {
    format!("[profile.x]\nagent = \"claude\"\nbilling = \"metered\"\n{more}")
}

#[test]
fn an_overshoot_holds_the_largest_requests_of_the_dearest_model_allowed() {
    let sonnet = "models = [\"claude-sonnet-5-5\"]\n";
    for (more, least) in [
        ("overshoot_usd = \"2.819999\"\n".to_owned() + sonnet, "2.82"),
        ("overshoot_usd = \"14\"\n".to_owned(), "14.1"),
        ("overshoot_usd = \"8\"\nparallel_requests = 3\n".to_owned() + sonnet, "8.46"),
        ("overshoot_usd = \"3\"\noutput_tokens_max = 64000\n".to_owned() + sonnet, "3.14"),
        ("overshoot_usd = \"5\"\nmodels = [\"claude-sonnet-5-5\", \"claude-opus-5-5\"]\n".to_owned(), "5.64"),
    ] {
        let text = refused(&metered(&more));
        assert!(text.contains("overshoot_usd") && text.contains(&format!("\"{least}\"")), "{more}: {text}");
        let enough = more.replacen("overshoot_usd = ", "max_timeout_s = 60 #", 1) + "\n";
        assert!(checked(&format!("{MINIMAL}{}overshoot_usd = \"{least}\"\n", metered(&enough))).is_ok());
    }
    // A command shows no usage: whatever it says it may spend at most is charged.
    let command =
        "[profile.x]\nagent = \"command\"\nargv = [\"a\"]\nbilling = \"metered\"\novershoot_usd = \"0.01\"\n";
    assert!(checked(&format!("{MINIMAL}{command}")).is_ok());
    assert!(refused(&format!("{command}models = [\"m\"]\n")).contains("a command has no models"));
}

#[test]
fn a_metered_profile_whose_model_has_no_price_is_refused_until_it_has_one() {
    let profile = metered("overshoot_usd = \"9\"\nmodels = [\"own-model\"]\n");
    let text = refused(&profile);
    assert!(text.contains("profile.x.models") && text.contains("`own-model`"), "{text}");
    let price = "[price.own-model]\nas_of = \"2026-11-01\"\ninput_usd = \"1\"\noutput_usd = \"2\"\n\
                 cache_read_usd = \"0\"\ncache_write_5m_usd = \"1\"\ncache_write_1h_usd = \"1\"\n\
                 context_tokens = 200000\noutput_tokens = 8000\n";
    assert!(checked(&format!("{MINIMAL}{profile}{price}")).is_ok());
    let incomplete = price.replace("output_usd = \"2\"\n", "");
    assert!(refused(&incomplete).contains("`price.own-model.output_usd` is missing"));
    assert!(refused(&price.replace("2026-11-01", "1.11.2026")).contains("a day like"));
}

#[test]
fn prices_are_old_after_ninety_days() {
    use dispatch_core::protocol::time::Timestamp;
    let prices = checked(MINIMAL).unwrap().prices;
    assert_eq!(prices.oldest().unwrap().to_string(), "2026-10-24");
    let old_at = |text: &str| prices.old_at(Timestamp::parse(text).unwrap()).len();
    assert_eq!(old_at("2027-01-22T23:59:59.999Z"), 0);
    assert_eq!(old_at("2027-01-23T00:00:00.000Z"), prices.table().iter().count());
}

#[test]
fn values_outside_their_rule_are_refused() {
    for (text, expected) in [
        ("[exec]\nmax_parallel = 0", "a whole number from 1 to 1024"),
        ("[exec]\nmax_parallel = \"2\"", "must be a whole number, not string"),
        ("[exec]\nmax_parallel = -2", "a whole number from 1 to 1024"),
        ("[budget]\nrun_usd = 5", "must be a text in quotes, not integer"),
        ("[budget]\nrun_usd = \"1e3\"", "not an amount of money"),
        ("[budget]\nsoft_ratio = \"0\"", "a part above 0"),
        ("[budget]\nsoft_ratio = \"1.1\"", "a part above 0"),
        ("[peer.a]\nkeys = [\"k\"]", "not its own peer"),
        ("[peer.x-to-y]\nkeys = [\"k\"]", "no part between hyphens"),
        ("[peer.b]\n", "`peer.b.keys` is missing"),
        ("[peer.b]\nkeys=[\"k\"]\nschema = 1", "a whole number from 2 to 3"),
        ("[peer.b]\nkeys=[\"k\"]\ntimeout_s = 5", "only a peer with schema = 2 has this"),
        ("[peer.b]\nkeys=[\"k\"]\nschema = 2\nlane_key = \"l\"", "signs both directions"),
        ("[peer.b]\nkeys=[\"k\"]\nschema = 2\nallow_metred = true", "did you mean `allow_metered`?"),
        ("[profile.c]\nagent = \"command\"\nbilling = \"free\"", "`profile.c.argv` is missing"),
        ("[workspace.w]\npath = \"x\"", "an absolute path"),
        ("[watch]\nstrategy = \"fast\"", "one of auto, inotify"),
        ("[notify]\n", "`notify.argv` is missing"),
        ("exec = 3", "`exec` must be a table, not integer"),
        ("x", "not TOML"),
    ] {
        assert!(refused(text).contains(expected), "{text}: {}", refused(text));
    }
}

#[test]
fn a_version_2_peer_is_held_short_unless_the_file_says_otherwise() {
    let peer = |more: &str| {
        let config = checked(&format!("{MINIMAL}[peer.b]\nkeys = [\"k\"]\nschema = 2\n{more}")).unwrap();
        config.peers.into_values().next().unwrap()
    };
    let silent = peer("");
    assert_eq!((silent.gate, silent.allow_dangerous, silent.allow_metered), (PeerGate::Always, false, false));
    let allowed = silent.version_2().unwrap();
    assert_eq!((allowed.unsigned_acks, allowed.bounds.timeout_s), (false, 3_600));
    assert_eq!(allowed.bounds.max_output_bytes, 2_000_000);
    let said = peer("gate = \"policy\"\nlegacy_unsigned_acks = true\ntimeout_s = 60\nallow_metered = true\n");
    assert_eq!((said.gate, said.allow_metered), (PeerGate::Policy, true));
    assert!(said.version_2().is_some_and(|allowed| allowed.unsigned_acks && allowed.bounds.timeout_s == 60));
}

#[test]
fn version_two_variables_override_the_file() {
    let environment = Environment::empty()
        .with("DISPATCH_ROOT", "/other")
        .with("DISPATCH_SIDE", "b")
        .with("DISPATCH_POLL_SEC", "3")
        .with("DISPATCH_MAX_PARALLEL", "7")
        .with("DISPATCH_AGENT_BIN", "/opt/agent");
    let text = format!(
        "{MINIMAL}[profile.default]\nagent = \"command\"\nargv = [\"x\", \"y\"]\nbilling = \"free\"\n"
    );
    let config = check(Path::new("/d/dispatch.toml"), &text, &environment).unwrap();
    assert_eq!((config.root.as_path(), config.node.as_str()), (Path::new("/other"), "b"));
    assert_eq!(config.watch.poll, Some(Duration::from_secs(3)));
    assert_eq!(config.exec.max_parallel, 7);
    assert_eq!(config.profiles.values().next().unwrap().argv, ["/opt/agent", "y"]);
    let root = config.effective.iter().find(|effective| effective.key == "root").unwrap();
    assert_eq!(root.origin, Origin::Variable("DISPATCH_ROOT"));
    let relative = Environment::empty().with("DISPATCH_AGENT_BIN", "agent");
    assert!(check(Path::new("/d"), &text, &relative).is_err());
}

#[test]
fn a_configuration_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dispatch.toml");
    std::fs::write(&file, MINIMAL).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(read_file(&file, &Environment::empty()).unwrap_err().problem, Problem::Loose));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(read_file(&file, &Environment::empty()).unwrap().node.as_str(), "a");
}

const CLIENT: &str = "[backend.far]\nkind = \"cloud_worker\"\nargv = [\"/bin/engine\", \"{image}\"]\n";

#[test]
fn a_backend_that_contradicts_itself_or_has_no_price_does_not_hold() {
    for (toml, why) in [
        ("[backend.g]\nkind = \"local\"\nhas_gpu = false\navailable_vram_gb = \"8\"\n", "has no GPU memory"),
        ("[backend.g]\nkind = \"local\"\nhas_gpu = true\n", "available_vram_gb"),
        ("[backend.g]\nkind = \"lan_worker\"\n", "backend.g.node"),
        ("[backend.g]\nkind = \"lan_worker\"\nnode = \"nobody\"\n", "there is no [peer.nobody]"),
        ("[backend.g]\nkind = \"sdk\"\nprofile = \"x\"\n", "there is no [profile.x]"),
        ("[backend.g]\nkind = \"local\"\ntools = [\"-x\"]\n", "not an option"),
        ("[backend.g]\nkind = \"cloud_worker\"\nbilling = \"free\"\nargv = [\"{request}\"]\n", "{timeout_s}"),
        (&format!("{CLIENT}billing = \"free\"\n"), "backend.far.images"),
        (&format!("{CLIENT}images = [\"a\"]\n"), "backend.far.billing"),
        (
            &format!("{CLIENT}images = [\"a\"]\nbilling = \"metered\"\nvcpu_usd_per_s = \"1\"\n"),
            "needs a price",
        ),
        (
            &format!("{CLIENT}images = [\"a\"]\nbilling = \"metered\"\ngpu_usd_per_s = \"-1\"\n"),
            "not below 0",
        ),
    ] {
        let text = refused(toml);
        assert!(text.contains(why), "{toml}\n{text}");
    }
}

#[test]
fn an_endpoint_is_a_plain_https_address_with_a_secret_by_name() {
    let endpoint = |url: &str| format!("[endpoint.m]\nbase_url = \"{url}\"\nsecret_env = \"KEY\"\n");
    let config = checked(&format!("{MINIMAL}{}", endpoint("https://api.example.com:8443/v1"))).unwrap();
    assert_eq!(config.endpoints.values().next().unwrap().host, "api.example.com");
    for url in [
        "http://api.example.com",
        "https://",
        "https://user:pass@api.example.com",
        "https://api.example.com?key=1",
        "https://api.example.com:99999",
        "https://API.example.com",
        "https://api.example.com/a b",
    ] {
        assert!(refused(&endpoint(url)).contains("https only"), "{url}");
    }
    assert!(refused("[endpoint.m]\nbase_url = \"https://a.b\"\n").contains("endpoint.m.secret_env"));
    let profile = "[profile.p]\nagent = \"claude\"\nbilling = \"free\"\nendpoint = \"m\"\n";
    assert!(refused(profile).contains("there is no [endpoint.m]"));
}
