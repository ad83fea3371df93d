//! A real Prometheus for the length of a test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use world::control_plane::program;

/// Prometheus is up in a fraction of a second; this is for a machine that is busy with everything else.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends Prometheus when the pipe to this shell closes, which it does however the test ends.
const KEEPER: &str = r#""$@" & read -r _; kill -KILL $!; wait"#;

/// A running Prometheus that scrapes one target as the job `spillway`.
pub(crate) struct Prometheus {
    keeper: Child,
    address: String,
    client: reqwest::Client,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it on a free port, with the rule files of a folder; `interval` is that of scrapes and evaluations.
    pub(crate) fn start(target: &str, interval: &str, rules: &Path) -> Result<Prometheus> {
        let folder = tempfile::tempdir()?;
        let rules = rules.canonicalize().with_context(|| rules.display().to_string())?;
        let config = serde_json::json!({
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [rules.join("*.yaml")],
            "scrape_configs": [{"job_name": "spillway", "honor_labels": true, "static_configs": [{"targets": [target]}]}],
        });
        let file = folder.path().join("prometheus.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string())?;
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(program("prometheus")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(keeper.stderr.take().context("stderr is piped")?);
        let address = address_in(log)?;
        Ok(Prometheus { keeper, address, client: reqwest::Client::new(), _folder: folder })
    }

    /// Waits until the target was scraped so many times.
    pub(crate) async fn scrapes(&self, wanted: u32) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let scraped = self.query("sum_over_time(up[5m])", seconds_now()).await?;
            if scraped.iter().any(|&count| count >= f64::from(wanted)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{scraped:?} scrapes after {START_TIMEOUT:?}: {}", self.get("targets", &[]).await?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// When the target was last scraped, and answered. Later its series are gone.
    pub(crate) async fn last_scrape(&self) -> Result<f64> {
        let found = self.query("max_over_time(timestamp(up == 1)[5m:100ms])", seconds_now()).await?;
        found.first().copied().context("never scraped")
    }

    /// The values of an instant query at a time in seconds since 1970.
    pub(crate) async fn query(&self, query: &str, at: f64) -> Result<Vec<f64>> {
        let data = self.get("query", &[("query", query), ("time", &format!("{at:.3}"))]).await?;
        samples(&data, |series| vec![&series["value"]])
    }

    /// All values of a range query over the seconds before a time.
    pub(crate) async fn query_range(&self, query: &str, end: f64, seconds: u32) -> Result<Vec<f64>> {
        let (start, end) = (format!("{:.3}", end - f64::from(seconds)), format!("{end:.3}"));
        let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "0.5")];
        let data = self.get("query_range", &parameters).await?;
        samples(&data, |series| series["values"].as_array().map(|values| values.iter().collect()).unwrap_or_default())
    }

    /// The values that a label has in some series.
    pub(crate) async fn label_values(&self, label: &str, series: &str) -> Result<Vec<String>> {
        let data = self.get(&format!("label/{label}/values"), &[("match[]", series)]).await?;
        Ok(serde_json::from_value(data)?)
    }

    /// `GET /api/v1/<path>`: the data of the answer.
    pub(crate) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let mut answer: Value = self.client.get(url).query(parameters).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{path} {parameters:?}: {answer}");
        Ok(answer["data"].take())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// The time of this machine, as Prometheus counts it.
pub(crate) fn seconds_now() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// The address that Prometheus logs once it listens. What it logs later is read and dropped, or it would block.
fn address_in(mut log: impl BufRead + Send + 'static) -> Result<String> {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        if log.read_line(&mut line)? == 0 {
            bail!("Prometheus ended:\n{all}");
        }
        if line.contains("Listening on") {
            let (_, address) = line.trim_end().rsplit_once("address=").with_context(|| line.clone())?;
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Ok(address.to_string());
        }
        all.push_str(&line);
    }
}

fn samples<'a>(data: &'a Value, of: impl Fn(&'a Value) -> Vec<&'a Value>) -> Result<Vec<f64>> {
    let series = data["result"].as_array().with_context(|| format!("no result in {data}"))?;
    series.iter().flat_map(of).map(|sample| Ok(sample[1].as_str().context("a sample is text")?.parse()?)).collect()
}
