//! Chromium without a window, driven over its debugging pipe: messages in JSON, each ended by a NUL. It reads them from its
//! file 3 and answers on 4, which a shell makes of the pipes that a process has anyway.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// It starts within seconds, and answers at once.
const ANSWER: Duration = Duration::from_secs(30);
const START: &str = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                     --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page. Ended when dropped.
pub struct Browser {
    child: Child,
    send: ChildStdin,
    said: Receiver<Value>,
    calls: u64,
    session: Option<String>,
    /// What the page complained of: exceptions, errors on its console, and in the browser's log about it.
    pub complaints: Vec<Value>,
    _directory: TempDir,
}

impl Browser {
    /// Opens a page.
    pub fn open(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", START, "sh", directory.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, receive) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, said) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(receive).split(0) {
                let Ok(message) = message else { return };
                let _ = say.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Self {
            child,
            send,
            said,
            calls: 0,
            session: None,
            complaints: Vec::new(),
            _directory: directory,
        };
        let targets = browser.call("Target.getTargets", json!({}));
        let targets = targets["targetInfos"].as_array().unwrap().clone();
        let page = targets.iter().find(|target| target["type"] == "page");
        let attach = json!({"targetId": page.unwrap()["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900);
        browser.call("Page.navigate", json!({"url": url}));
        browser
    }

    /// Another size of the window.
    pub fn size(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the system prefers: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Presses a key of that name.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = json!(selector);
        let text = self.value(&format!(
            "document.querySelector({selector})?.textContent ?? ''"
        ));
        text.as_str().unwrap().to_owned()
    }

    /// Clicks the first element that a selector finds.
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        let found = self.value(&format!(
            "(element => {{ element?.click(); return element !== null; }})(document.querySelector({selector}))"
        ));
        assert_eq!(found, true, "no {selector}");
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while self.value(expression) != true {
            assert!(
                Instant::now() < deadline,
                "not within {within:?}: {expression}\n{}\n{:?}",
                self.text("main"),
                self.complaints
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.send
            .write_all(format!("{message}\0").as_bytes())
            .unwrap();
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(said) = self.said.recv_timeout(left) else {
                panic!("chromium does not answer {method}; is it installed (tests/install)?");
            };
            if said["id"] == self.calls {
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].clone();
            }
            self.hear(said);
        }
    }

    fn hear(&mut self, mut event: Value) {
        let is_bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        };
        if is_bad {
            self.complaints.push(event["params"].take());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
