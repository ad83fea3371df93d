//! The double with its checker before it, started once for all tests of the process.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use policy::Timestamp;
use providers::aci::{Access, Aci, Pace, Settings};
use providers::{Clock, Ownership};
use serde_json::{Value, json};

use super::cloud::Cloud;
use super::server::{self, Clouds};
use super::transport::{Loopback, Static};

/// Container groups, usages and logs, derived from the classes of Microsoft's own SDK for Python (MIT licence).
const DESCRIPTION: &str = include_str!("openapi.json");
const PRISM: &str = "prism-5.14.2/node_modules/@stoplight/prism-cli/dist/index.js";
/// Ends with its standard input, so that it never outlives the tests, however they end.
const UNTIL_STDIN_ENDS: &str = "process.stdin.resume(); process.stdin.on('end', () => process.exit(0)); require(process.argv[1])";
const PATIENCE: Duration = Duration::from_secs(120);

/// What runs.
pub(super) struct Bench {
    clouds: Clouds,
    pub(super) checked: String,
    pub(super) unchecked: String,
    web_sockets: String,
    _prism: Child,
    _folder: tempfile::TempDir,
}

/// One subscription of the double with a clock of its own.
pub(super) struct Subscription {
    id: String,
    cloud: Arc<Mutex<Cloud>>,
    millis: Arc<AtomicI64>,
    transport: Loopback,
    bench: &'static Bench,
}

/// The bench of this process.
pub(super) fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(start)
}

fn start() -> Bench {
    let clouds = Clouds::default();
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        (listener.local_addr().expect("an address"), listener)
    };
    let ((http, http_listener), (web_sockets, web_socket_listener)) = (listen(), listen());
    let served = clouds.clone();
    // A runtime of its own: that of a test ends with the test.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let http = tokio::net::TcpListener::from_std(http_listener).expect("a listener");
            let web_sockets = tokio::net::TcpListener::from_std(web_socket_listener).expect("a listener");
            tokio::join!(server::serve(http, served.clone()), server::serve_web_sockets(web_sockets, served));
        });
    });
    let folder = tempfile::tempdir().expect("a folder");
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, strict().to_string()).expect("the document");
    let unchecked = format!("http://{http}");
    let (checked, prism) = prism(&document, &unchecked, folder.path());
    Bench { clouds, checked, unchecked, web_sockets: format!("ws://{web_sockets}"), _prism: prism, _folder: folder }
}

/// The description with every object closed: as it stands, a misspelt field would pass.
fn strict() -> Value {
    fn close(value: &mut Value) {
        if let Some(object) = value.as_object_mut()
            && object.get("type").is_some_and(|kind| kind == "object")
            && object.get("properties").is_some_and(Value::is_object)
        {
            object.entry("additionalProperties").or_insert(json!(false));
        }
        match value {
            Value::Array(values) => values.iter_mut().for_each(close),
            Value::Object(values) => values.values_mut().for_each(close),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut description: Value = serde_json::from_str(DESCRIPTION).expect("JSON");
    close(&mut description);
    description
}

fn prism(document: &Path, upstream: &str, folder: &Path) -> (String, Child) {
    let program = world::control_plane::program(PRISM).expect("prism");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let log = std::fs::File::create(folder.join("prism.log")).expect("a log");
    let child = Command::new("node")
        .args(["-e", UNTIL_STDIN_ENDS, "--"])
        .arg(program)
        .args(["proxy", "-h", "127.0.0.1", "-p", &port.to_string(), "--errors", "-v", "error"])
        .args([document.as_os_str(), upstream.as_ref()])
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("node, which Debian has as a package");
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = || std::fs::read_to_string(folder.join("prism.log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "prism does not listen: {}", log());
        // There is nothing to wait for but the port.
        std::thread::sleep(Duration::from_millis(50));
    }
    (format!("http://127.0.0.1:{port}"), child)
}

// === impl Subscription ===

impl Subscription {
    /// A new subscription whose requests and answers are checked.
    pub(super) fn new(name: u32) -> Subscription {
        Subscription::at(name, &bench().checked)
    }

    /// The same without the checker between, where many calls are made.
    pub(super) fn unchecked(name: u32) -> Subscription {
        Subscription::at(name, &bench().unchecked)
    }

    fn at(name: u32, base: &str) -> Subscription {
        let bench = bench();
        let id = format!("{name:08x}-0000-4000-8000-000000000000");
        let start = 1_795_000_000_000;
        let cloud = Arc::new(Mutex::new(Cloud::new(start, bench.web_sockets.clone())));
        bench.clouds.all().insert(id.clone(), cloud.clone());
        Subscription { id, cloud, millis: Arc::new(AtomicI64::new(start)), transport: Loopback::new(base.to_owned()), bench }
    }

    pub(super) fn settings(&self, virtual_node: &str) -> Settings {
        let ownership = Ownership { cluster: "5a1e0000-cluster".into(), virtual_node: virtual_node.into() };
        Settings::new(self.id.clone(), "bursts", "eastus", ownership)
    }

    pub(super) fn provider(&self, settings: Settings) -> Aci {
        self.provider_with_prices(settings, self.retail_prices())
    }

    fn retail_prices(&self) -> String {
        let host = self.bench.unchecked.trim_start_matches("http://");
        format!("{}/api/retail/prices?host={host}", self.bench.unchecked)
    }

    /// A provider whose price list is somewhere else.
    pub(super) fn provider_with_prices(&self, settings: Settings, retail_prices: String) -> Aci {
        let millis = self.millis.clone();
        let clock: Clock = Arc::new(move || Timestamp::from_millis(millis.load(Ordering::Relaxed)));
        Aci::new(settings, Access { retail_prices, ..self.access() }, clock).expect("settings")
    }

    /// The way to the double.
    pub(super) fn access(&self) -> Access {
        Access {
            credential: Arc::new(Static),
            transport: Some(Arc::new(self.transport.clone())),
            retail_prices: self.retail_prices(),
            log_pace: Pace { shortest: Duration::from_millis(5), longest: Duration::from_millis(40) },
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// Time goes by for the double and for the provider.
    pub(super) fn pass(&self, millis: i64) {
        let now = self.millis.fetch_add(millis, Ordering::Relaxed) + millis;
        self.cloud().now = now;
    }

    /// The double's state, for what only Azure itself can do. Not to be held across a call.
    pub(super) fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the checker objected to, since the last time.
    pub(super) fn violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.transport.violations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn nothing_was_violated(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}
