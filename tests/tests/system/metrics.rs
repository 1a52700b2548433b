//! `metrics/<node>.prom`, read by a parser that takes nothing but the format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use dispatch_testkit::{Cluster, eventually};

use crate::{cluster, note};

/// A family's name, and labels with their texts.
type Key = (String, BTreeMap<String, String>);
/// Samples, in text.
type Samples = BTreeMap<Key, String>;

/// Reads the text exposition format strictly: HELP and TYPE before a family's samples, every family once and in one piece,
/// no sample twice, names and numbers of their form, everything escaped, a line feed at the end.
fn parse(text: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    let mut closed: BTreeSet<String> = BTreeSet::new();
    let mut open: Option<(String, bool)> = None;
    if !text.ends_with('\n') {
        return Err("no line feed at the end".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without a text")?;
            is_name(name)?;
            unescape(help, "\\n")?;
            if let Some((before, _)) = open.replace((name.to_owned(), false)) {
                closed.insert(before);
            }
            if closed.contains(name) {
                return Err(format!("{name} comes twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a kind")?;
            match &mut open {
                Some((family, typed)) if family == name && !*typed => *typed = true,
                _ => return Err(format!("TYPE of {name} out of place")),
            }
            if !["gauge", "counter"].contains(&kind) || (kind == "counter") != name.ends_with("_total") {
                return Err(format!("{name} is a {kind}"));
            }
        } else {
            let (key, value) = sample(line)?;
            if open.as_ref() != Some(&(key.0.clone(), true)) {
                return Err(format!("a sample of {} out of place", key.0));
            }
            if samples.insert(key, value).is_some() {
                return Err(format!("twice: {line}"));
            }
        }
    }
    Ok(samples)
}

fn is_name(name: &str) -> Result<(), String> {
    let fits = name
        .chars()
        .enumerate()
        .all(|(at, ch)| ch.is_ascii_alphabetic() || ch == '_' || (at > 0 && ch.is_ascii_digit()));
    if fits && !name.is_empty() { Ok(()) } else { Err(format!("no name: `{name}`")) }
}

fn unescape(text: &str, allowed: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(next) if allowed.contains(next) => plain.push(next),
                other => return Err(format!("a strange escape: {other:?}")),
            },
            _ => plain.push(ch),
        }
    }
    Ok(plain)
}

fn sample(line: &str) -> Result<(Key, String), String> {
    let (name, mut rest) = line.split_once('{').ok_or_else(|| format!("no labels: {line}"))?;
    is_name(name)?;
    let mut labels = BTreeMap::new();
    loop {
        let (label, after) = rest.split_once("=\"").ok_or_else(|| format!("no label: {line}"))?;
        is_name(label)?;
        let mut escaped = false;
        let end = after
            .find(|ch| {
                let ends = ch == '"' && !escaped;
                escaped = ch == '\\' && !escaped;
                ends
            })
            .ok_or_else(|| format!("an open label: {line}"))?;
        if labels.insert(label.to_owned(), unescape(&after[..end], "\\\"")?).is_some() {
            return Err(format!("a label twice: {line}"));
        }
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").ok_or_else(|| format!("no value: {line}"))?;
    value.parse::<f64>().map_err(|_| format!("no number: {line}"))?;
    if !value.chars().all(|ch| ch.is_ascii_digit() || ".-".contains(ch)) {
        return Err(format!("a strange number: {line}"));
    }
    Ok(((name.to_owned(), labels), value.to_owned()))
}

fn metrics(cluster: &Cluster, node: &str) -> Option<Samples> {
    let text = fs::read_to_string(cluster.share().join(format!("metrics/{node}.prom"))).ok()?;
    Some(parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}")))
}

fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<String> {
    let mut wanted: BTreeMap<String, String> =
        labels.iter().map(|(label, text)| ((*label).to_owned(), (*text).to_owned())).collect();
    wanted.insert("node".to_owned(), "b".to_owned());
    samples.get(&(name.to_owned(), wanted)).cloned()
}

#[test]
fn a_strict_reader_takes_what_a_node_says_of_itself() {
    let cluster = cluster();
    drop(cluster.b().approver("ann"));
    cluster.b().configure("[budget]\nrun_usd = \"5\"\nmonth_usd = \"100.5\"\n");
    let _a = cluster.a().watch();
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "counted"), &[]);
    cluster.answered(&id, "ok");
    let failed = cluster.a().send("b", "exit 3", &[]);
    cluster.answered(&failed, "error");
    let unknown = cluster.a().send("b", "echo never", &["--profile", "unknown"]);
    cluster.answered(&unknown, "rejected");
    drop(cluster.a().send("b", "echo parked", &["--require-ack"]));
    fs::write(cluster.lane("a", "b").join("inbox").join(format!("{id}.json")), "{}").unwrap();
    let samples = eventually("the numbers are there", || {
        metrics(&cluster, "b").filter(|samples| {
            value(samples, "dispatch_tasks_waiting", &[("from", "a")]).as_deref() == Some("1")
                && value(samples, "dispatch_messages_refused_total", &[("code", "malformed")]).is_some()
                && value(samples, "dispatch_peer_health", &[("peer", "a"), ("health", "healthy")]).as_deref()
                    == Some("1")
        })
    });
    for (name, labels, expected) in [
        ("dispatch_tasks_final_total", vec![("status", "ok")], "1"),
        ("dispatch_tasks_final_total", vec![("status", "error")], "1"),
        ("dispatch_tasks_final_total", vec![("status", "rejected")], "1"),
        ("dispatch_tasks_final_total", vec![("status", "unknown")], "0"),
        ("dispatch_executor_launches_total", vec![], "2"),
        ("dispatch_tasks_capacity", vec![], "2"),
        ("dispatch_budget_cap_usd", vec![("window", "month")], "100.5"),
        ("dispatch_budget_spent_usd", vec![("window", "month"), ("sender", "")], "0"),
        ("dispatch_killswitch_tripped", vec![], "0"),
        ("dispatch_state", vec![("state", "active")], "1"),
        ("dispatch_state", vec![("state", "maintenance")], "0"),
        ("dispatch_backpressure", vec![], "0"),
        ("dispatch_info", vec![("version", env!("CARGO_PKG_VERSION")), ("strategy", "inotify")], "1"),
    ] {
        assert_eq!(value(&samples, name, &labels).as_deref(), Some(expected), "{name} {labels:?}");
    }
    for name in [
        "dispatch_audit_seq",
        "dispatch_watcher_boot",
        "dispatch_share_look_seconds",
        "dispatch_written_seconds",
    ] {
        assert!(
            value(&samples, name, &[]).is_some_and(|value| value.parse::<f64>().unwrap() >= 0.0),
            "{name}"
        );
    }
    assert_eq!(b.stop(), 0);
    // Counters of tasks outlive the watcher that counted them.
    let before = fs::metadata(cluster.share().join("metrics/b.prom")).unwrap().modified().unwrap();
    let _b = cluster.b().watch();
    let again = eventually("the numbers are written again", || {
        let now = fs::metadata(cluster.share().join("metrics/b.prom")).ok()?.modified().ok()?;
        metrics(&cluster, "b").filter(|_| now > before)
    });
    assert_eq!(value(&again, "dispatch_tasks_final_total", &[("status", "ok")]).as_deref(), Some("1"));
    assert_eq!(value(&again, "dispatch_executor_launches_total", &[]).as_deref(), Some("0"));
}

#[test]
fn a_share_without_the_directory_of_metrics_works_and_init_adds_it() {
    let cluster = cluster();
    fs::remove_dir_all(cluster.share().join("metrics")).unwrap();
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "runs"), &[]);
    cluster.answered(&id, "ok");
    assert_eq!(b.stop(), 0);
    drop(cluster.b().ctl(["init"]).ok());
    let _b = cluster.b().watch();
    eventually("the numbers are there", || metrics(&cluster, "b"));
}

#[test]
fn somebody_elses_file_in_the_place_of_the_metrics_is_set_aside() {
    let cluster = cluster();
    let place = cluster.share().join("metrics/b.prom");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("x"), "x").unwrap();
    let _b = cluster.b().watch();
    eventually("the numbers are there", || metrics(&cluster, "b"));
    eventually("it is audited", || cluster.audited("b", "squatted"));
}

#[test]
fn the_reader_of_this_test_is_strict() {
    let good = "# HELP x_total a\\nb\n# TYPE x_total counter\nx_total{node=\"b\",l=\"a\\\"b\\\\\"} 1\n";
    assert_eq!(parse(good).unwrap().len(), 1);
    for bad in [
        good.trim_end(),
        "x{node=\"b\"} 1\n",
        "# HELP x h\n# TYPE x counter\nx{node=\"b\"} 1\n",
        "# HELP x h\n# TYPE x gauge\nx{node=\"b\"} one\n",
        "# HELP x h\n# TYPE x gauge\nx{node=\"b\"} 1e3\n",
        "# HELP x h\n# TYPE x gauge\nx{node=\"b\"} 1\nx{node=\"b\"} 1\n",
        "# HELP x h\n# TYPE x gauge\nx{node=\"b\" 1\n",
        "# HELP x h\n# TYPE x gauge\nx{node=\"\\x\"} 1\n",
        "# HELP x h\n# TYPE x gauge\n# HELP y h\n# TYPE y gauge\n# HELP x h\n# TYPE x gauge\n",
        "# HELP x h\n# TYPE x gauge\n\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
