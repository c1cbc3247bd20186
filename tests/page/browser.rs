//! A browser without a window, driven over WebDriver.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Key by which WebDriver marks an element (W3C WebDriver, section 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    runtime: Runtime,
    client: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser, whose process is not ours.
        let ended = self.client.delete(&self.session).send();
        let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), ended).await });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts a browser whose waits last for `patience` at most.
    pub fn start(patience: Duration) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error} (tests/setup installs it)"));
        let output = BufReader::new(driver.stdout.take().unwrap());
        // "ChromeDriver was started successfully on port 43210."
        let port_of =
            |line: String| line.rsplit_once("successfully on port ")?.1.trim_end_matches('.').parse().ok();
        let port: u16 =
            output.lines().find_map(|line| port_of(line.unwrap())).expect("chromedriver tells its port");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        l4lbd::source::http::install_tls_provider();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new".to_owned(),
            // There is no other user in the namespaces of a test.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let mut browser = Self {
            driver,
            runtime,
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "timeouts": { "script": patience.as_millis() as u64 },
        } } });
        let session = browser.post("", &wanted);
        browser.session.push_str(&format!("/{}", session["sessionId"].as_str().unwrap()));
        browser
    }

    /// Sends a command and returns its value.
    fn post(&self, command: &str, body: &Value) -> Value {
        let url = format!("{}{command}", self.session);
        let asked = self.client.post(&url).header("content-type", "application/json").body(body.to_string());
        let text = self.runtime.block_on(async { asked.send().await.unwrap().text().await.unwrap() });
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].take();
        if let Some(error) = value.get("error") {
            panic!("{command} {body}: {error}: {}", value["message"]);
        }
        value
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script and returns what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Asks for an address without the browser, and returns status, media type and text.
    pub fn get(&self, url: &str, token: &str) -> (u16, String, String) {
        self.runtime.block_on(async {
            let asked = self.client.get(url).header("authorization", format!("Bearer {token}"));
            let answer = asked.send().await.unwrap();
            let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
            (answer.status().as_u16(), kind.unwrap_or_default(), answer.text().await.unwrap())
        })
    }

    /// Waits until a condition holds, which is looked at after each change of the page.
    pub fn until(&self, condition: &str) {
        let script = format!(
            "const done = arguments[0];
             const look = () => {{ const is = {condition}; if (is) done(true); return is; }};
             if (!look()) new MutationObserver((_, own) => {{ if (look()) own.disconnect(); }})
               .observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
             document.addEventListener('focusin', look);"
        );
        self.post("/execute/async", &json!({ "script": script, "args": [] }));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Types into an element.
    pub fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key, whatever has the focus.
    pub fn press(&self, key: &str) {
        let strokes = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }),
        );
    }

    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Returns the text that a person sees of an element.
    pub fn text(&self, selector: &str) -> String {
        let script = "return document.querySelector(arguments[0]).innerText.trim()";
        let text = self.post("/execute/sync", &json!({ "script": script, "args": [selector] }));
        text.as_str().unwrap().to_owned()
    }

    /// Keeps pictures of the page if that is wanted: as it is, and dark on a phone.
    pub fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("L4LBD_PAGE_SHOTS").map(PathBuf::from) else { return };
        let take = |kind: &str| {
            let url = format!("{}/screenshot", self.session);
            let answer = self
                .runtime
                .block_on(async { self.client.get(url).send().await.unwrap().text().await.unwrap() });
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let picture = STANDARD.decode(answer["value"].as_str().unwrap()).unwrap();
            std::fs::write(directory.join(format!("{name}-{kind}.png")), picture).unwrap();
        };
        let tool = |command: &str, parameters: Value| {
            self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
        };
        take("wide");
        let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        tool("Emulation.setDeviceMetricsOverride", phone);
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        tool("Emulation.setEmulatedMedia", dark);
        take("phone-dark");
        tool("Emulation.clearDeviceMetricsOverride", json!({}));
        tool("Emulation.setEmulatedMedia", json!({ "features": [] }));
    }
}
