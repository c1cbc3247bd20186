//! The web page in a browser, with the real daemon behind it.
//!
//! Runs as root in namespaces and a cgroup of its own, as tests/ebpf does, with Debian's chromium and chromium-driver,
//! which tests/setup installs. `L4LBD_PAGE_SHOTS=DIRECTORY` keeps pictures of the page there, for people to look at.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod browser;
#[path = "../ebpf/place.rs"]
#[allow(dead_code, reason = "shared with tests/ebpf, which uses more of it")]
mod place;
mod schema;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use browser::Browser;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

const TOKEN: &str = "the token of this test";

/// Texts by which a page would be taken over, hidden or torn apart.
const HOSTILE: [&str; 4] = [
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror=window.hacked=1>",
    "\u{202e}dlrow\u{2066}\u{200b}",
    "javascript:window.hacked=1//${7*7}{{7*7}}",
];

/// Longest wait for a daemon or a page. A test that fails waits so long, and no other.
const PATIENCE: Duration = Duration::from_secs(90);

struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task with a VIP.
fn task(id: &str, label: &str, port: u16, healthy: bool) -> Value {
    json!({
        "id": id, "name": "web", "framework_id": "F1", "slave_id": "A-S1", "state": "TASK_RUNNING",
        "statuses": [{ "state": "TASK_RUNNING", "timestamp": 1.0, "healthy": healthy }],
        "discovery": { "name": "web", "visibility": "FRAMEWORK", "ports": { "ports": [{
            "number": port, "name": "http", "protocol": "tcp",
            "labels": { "labels": [{ "key": "VIP_0", "value": label }] }
        }] } },
        "resources": { "ports": format!("[{port}-{port}]") },
    })
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("token"), TOKEN).unwrap();
        let (own, cgroup, pins) = (directory.path().display(), place::cgroup().display(), place::BPF);
        let text = format!(
            "[source]\nmasters = [\"file:{own}/state.json\"]\ninterval = \"100ms\"\n\
             [node]\naddress = \"10.0.0.1\"\n[vips]\nlinger = \"0s\"\n[dataplane]\nkind = \"ebpf\"\ndrain = \"0s\"\n\
             [ebpf]\ncgroup = \"{cgroup}\"\npins = \"{pins}/page\"\n[dns]\nlisten = []\n\
             [http]\nlisten = \"127.0.0.1:62080\"\ntoken = \"file:{own}/token\"\n\
             [daemon]\nstate_dir = \"{own}/state\"\nsocket = \"{own}/l4lbd.sock\"\n"
        );
        fs::write(path("l4lbd.toml"), text).unwrap();
        publish(directory.path(), &[task("first.1", "/first:80", 31_000, true)]);
        let notifications = UnixDatagram::bind(path("notify")).unwrap();
        notifications.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_l4lbd"))
            .args(["run", "--config"])
            .arg(path("l4lbd.toml"))
            .env("NOTIFY_SOCKET", path("notify"))
            .spawn()
            .unwrap();
        let daemon = Self { child, directory };
        let mut text = [0; 4096];
        loop {
            let length = notifications.recv(&mut text).expect("the daemon gets ready");
            if String::from_utf8_lossy(&text[..length]).contains("READY=1") {
                return daemon;
            }
        }
    }

    fn publish(&self, tasks: &[Value]) {
        publish(self.directory.path(), tasks);
    }
}

fn publish(directory: &Path, tasks: &[Value]) {
    let document = json!({
        "id": "M", "elected_time": 1.0, "start_time": 1.0, "hostname": "m", "leader": "master@10.0.0.9:5050",
        "slaves": [{ "id": "A-S1", "hostname": "n1", "pid": "slave(1)@10.0.0.1:5051", "active": true }],
        "frameworks": [{ "id": "F1", "name": "marathon", "active": true, "connected": true, "tasks": tasks }],
    });
    let draft = directory.join("state.json.new");
    fs::write(&draft, document.to_string()).unwrap();
    fs::rename(draft, directory.join("state.json")).unwrap();
}

/// A cluster with hostile texts wherever a tenant can put one.
fn hostile(healthy: bool) -> Vec<Value> {
    let mut tasks = vec![task("web.1", "/web:80", 31_001, true), task("web.2", "/web:80", 31_002, healthy)];
    for (number, text) in (0..).zip(HOSTILE) {
        tasks.push(task(
            &format!("{text}.{number}"),
            &format!("/evil{number}{text}:80"),
            31_100 + number,
            true,
        ));
        // Refused, so that its text comes back with the reason.
        tasks.push(task(&format!("bad-{text}-{number}"), &format!("{text}:99999"), 31_200 + number, true));
    }
    tasks.push(task(&"long".repeat(60), &format!("/{}:80", "x".repeat(60)), 31_300, true));
    tasks
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Before there are threads.
    let place = if arguments.list { Ok(None) } else { place::enter().map(Some) };
    let refused = place.as_ref().err().cloned();
    let trial = Trial::test("the_page_is_what_a_person_needs", move || match refused {
        Some(reason) => Err(Failed::from(reason)),
        None => {
            page();
            Ok(())
        }
    });
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, vec![trial]);
    if let Ok(Some(place)) = place {
        place.leave();
    }
    conclusion.exit_code()
}

/// A person looks for a VIP, watches it fail, and trusts no text.
fn page() {
    let daemon = Daemon::start();
    let browser = Browser::start(PATIENCE);
    daemon.publish(&hostile(true));
    browser.open("http://127.0.0.1:62080/");

    // Nothing is shown without the token.
    browser.until("!document.getElementById('login').hidden");
    assert_eq!(browser.text("#rows"), "");
    browser.keys("#token", "another\u{e007}");
    browser.until("document.getElementById('wrong').textContent.includes('not the token')");
    browser.keys("#token", &format!("{TOKEN}\u{e007}"));
    browser.until("document.getElementById('rows').textContent.includes('web.marathon')");
    assert!(!browser.run("return location.href").to_string().contains("token"));

    // Foreign text is text.
    assert_eq!(
        browser.run("return [window.hacked ?? null, document.querySelectorAll('img, iframe').length]"),
        json!([null, 0])
    );
    browser.picture("vips");
    browser.press("3");
    browser.until("document.querySelectorAll('#skipped tbody tr').length >= 4");
    let skipped = browser.text("#skipped");
    for part in [
        "<script>window.hacked=1</script>:99999",
        "\"><img src=x onerror=window.hacked=1>",
        "\\u{202e}dlrow\\u{2066}\\u{200b}",
    ] {
        assert!(skipped.contains(part), "{part}: {skipped}");
    }
    browser.picture("skipped");
    browser.press("4");
    browser.until("document.querySelector('#nodeview table')");
    browser.picture("node");
    browser.press("1");

    answers_are_as_described(&browser);

    // By the keyboard alone: search, choose, open.
    browser.press("/");
    browser.keys("#search", "web.mar");
    browser.until("document.querySelectorAll('#rows tr').length === 1");
    browser.press("\u{e015}");
    browser.until("document.activeElement.closest('#rows')");
    browser.press("\u{e007}");
    browser.until("document.querySelector('#vip h2')?.textContent.startsWith('web.marathon.l4lb.thisdcos.directory:80')");
    assert!(browser.text("#vip").contains("web.2"));

    // What happens arrives.
    daemon.publish(&hostile(false));
    browser.until("document.querySelector('#vip').textContent.includes('unhealthy')");
    browser.picture("vip");
    browser.press("2");
    browser.until("[...document.querySelectorAll('#history li')].some(item => item.textContent.includes('task-unhealthy') && item.textContent.includes('web.2'))");
    browser.picture("events");

    // The rows of a page are as many as ever, however many VIPs there are.
    let many: Vec<Value> = (0..10_000)
        .map(|number| task(&format!("app{number}.1"), &format!("/app{number}:80"), 31_000, true))
        .collect();
    daemon.publish(&many);
    browser.press("1");
    browser.run("document.getElementById('search').value = ''; document.getElementById('search').dispatchEvent(new Event('input'))");
    browser.until("document.getElementById('range').textContent.startsWith('1 to 100 of 10000')");
    assert_eq!(browser.run("return document.querySelectorAll('#rows tr').length"), json!(100));
    browser.click("#on");
    browser.until("document.getElementById('range').textContent.startsWith('101 to 200 of 10000')");
    browser.picture("many");
    browser.press("/");
    browser.keys("#search", "app9999.");
    browser.until("document.querySelectorAll('#rows tr').length === 1 && document.getElementById('range').textContent.includes('of 1 ')");
    assert_eq!(browser.run("return window.hacked ?? null"), json!(null));
}

/// Asks for every path of the description, and compares each answer with it.
fn answers_are_as_described(browser: &Browser) {
    let get = |path: &str| browser.get(&format!("http://127.0.0.1:62080{path}"), TOKEN);
    let (_, _, text) = get("/api/openapi.json");
    let description: Value = serde_json::from_str(&text).unwrap();
    for (path, operations) in description["paths"].as_object().unwrap() {
        let name = if path.contains("services") { "_web._tcp.marathon.mesos" } else { "web.marathon" };
        let (status, kind, text) = get(&path.replace("{name}", name));
        assert_eq!(status, 200, "{path}: {text}");
        let content = &operations["get"]["responses"]["200"]["content"];
        let kind = kind.split(';').next().unwrap();
        let schema = &content[kind]["schema"];
        assert!(schema.is_object(), "{path}: {kind} is not described");
        if kind == "application/json" {
            let answer = serde_json::from_str(&text).unwrap();
            let objections = schema::objections(&description, schema, &answer, path);
            assert!(objections.is_empty(), "{objections:#?}");
        }
    }
    for (path, expected) in
        [("/api/vips?health=x", 400), ("/api/vip/nothing.here", 404), ("/api/events?after=x", 400)]
    {
        assert_eq!(get(path).0, expected, "{path}");
    }
    let (_, _, vips) = get("/v1/vips");
    let vips: Value = serde_json::from_str(&vips).unwrap();
    let web =
        vips.as_array().unwrap().iter().find(|vip| vip["vip"] == "web.marathon.l4lb.thisdcos.directory:80");
    assert_eq!(
        web.unwrap()["backend"],
        json!([{ "ip": "10.0.0.1", "port": 31_001 }, { "ip": "10.0.0.1", "port": 31_002 }])
    );
}
