//! The API over HTTP; the only place that knows the client.
//!
//! One call is one attempt, and nothing here counts its time as a whole: see [`line`]. Redirects are followed by hand, within their
//! origin and signed anew. Only the origin of the API is told who we are; an artifact that lies elsewhere is fetched like a stranger.

mod line;
mod place;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use ureq::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, TRANSFER_ENCODING,
};
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, parse_pem};
use ureq::{Agent, Body, Error};

use self::line::{Ended, Lines, Names, Patience};
pub(super) use self::place::shown_text;
use super::api::{Activity, ApiError, Cause, Job, JobApi, Polled};
use super::retry::retry_after;
use super::sign::{Signed, Signer};
use super::stop::Stop;

/// Redirects of one call.
const REDIRECTS_MAX: u32 = 5;
/// Bytes of a job: it holds a manifest, for which a server may have as much as for a result.
const JOB_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Bytes of an id in it, which every event of the job has.
const ID_BYTES_MAX: usize = 1024;
/// Bytes of an answer that says little.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes that are read of the text of a refusal, and characters that are kept.
const REFUSAL_BYTES_MAX: u64 = 4096;
const REFUSAL_CHARS_MAX: usize = 300;
/// Bytes that are read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// How long a connection is kept that nobody uses: longer than the longest pause between two polls.
const UNUSED_MAX: Duration = Duration::from_secs(60);

/// How long a server may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpLimits {
    /// For looking up a name, and again for connecting.
    pub(super) connect: Duration,
    /// Without any byte, in either direction.
    pub(super) idle: Duration,
    /// In so much time of waiting at least `window_bytes_min` must move, or the call must be over.
    pub(super) window: Duration,
    /// See `window`.
    pub(super) window_bytes_min: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            window: Duration::from_secs(60),
            window_bytes_min: 64 * 1024,
        }
    }
}

/// What an [`HttpApi`] must know.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpConfig<'a> {
    /// May have a path and a slash at its end.
    pub(super) base_url: &'a str,
    /// A header's value when there is a secret, so ASCII without control characters.
    pub(super) worker_id: &'a str,
    /// Without one nothing is signed.
    pub(super) secret: Option<&'a str>,
    /// PEM certificates that are trusted beside the usual ones.
    pub(super) ca_file: Option<&'a Path>,
    pub(super) limits: HttpLimits,
}

/// Why there can be no [`HttpApi`].
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpConfigError {
    /// Not an address that we would use.
    #[error("`{url}` is no base URL of an API: {reason}")]
    BaseUrl { url: String, reason: &'static str },
    /// It cannot stand in a header.
    #[error("the worker id `{}` cannot be sent, use printable ASCII", worker_id.escape_debug())]
    WorkerId { worker_id: String },
    /// The system has no random numbers.
    #[error("could not open the system's random numbers")]
    Random(#[source] io::Error),
    /// The file of certificates.
    #[error("could not read the certificates in `{}`", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: Cause,
    },
    /// It holds none.
    #[error("`{}` holds no PEM certificate", path.display())]
    NoCertificate { path: PathBuf },
}

/// An API server behind HTTP. Connections are kept and shared by threads.
#[derive(Debug)]
pub(super) struct HttpApi {
    agent: Agent,
    base: Uri,
    signer: Option<Signer>,
    limits: HttpLimits,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
enum Sent<'a> {
    /// A GET.
    Nothing,
    /// A POST of this JSON text.
    Json(&'a [u8]),
}

/// What came: an answer without its body, and the place that gave it.
struct Answer {
    response: Response<Body>,
    url: String,
}

impl HttpApi {
    /// An API whose waits all end when `stop` is set. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When `config` is not usable.
    pub(super) fn new(config: &HttpConfig<'_>, stop: Stop) -> Result<Self, HttpConfigError> {
        let base = place::parse(config.base_url)
            .map_err(|reason| HttpConfigError::BaseUrl { url: shown_text(config.base_url), reason })?;
        let signer = config.secret.map(|secret| signer(secret, config.worker_id)).transpose()?;
        let own = config.ca_file.map(certificates).transpose()?.unwrap_or_default();
        let patience = Patience { limits: config.limits, stop };
        let agent = Agent::with_parts(client_config(), Lines::new(patience.clone(), own), Names(patience));
        Ok(Self { agent, base, signer, limits: config.limits })
    }

    /// Posts `body` to an API call; an answer of any status but a redirect.
    fn post(&self, path: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let url = place::below(&self.base, path)
            .map_err(|reason| ApiError::Refused { url: place::shown(&self.base), reason })?;
        self.call(url, Sent::Json(body))
    }

    fn post_activity(&self, path: &str, activity: &Activity) -> Result<Answer, ApiError> {
        self.post(path, &json(activity)?)
    }

    /// Sends to `to`, and to where redirects lead.
    fn call(&self, mut to: Uri, sent: Sent<'_>) -> Result<Answer, ApiError> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.attempt(&to, sent)?;
            let url = place::shown(&to);
            match redirect(&response, sent) {
                None => return Ok(Answer { response, url }),
                Some(location) => {
                    let location = location.map_err(|reason| ApiError::Refused { url: url.clone(), reason })?;
                    let misled = |reason| ApiError::Misled { url, to: shown_text(location), reason };
                    to = place::follow(&to, location).map_err(misled)?;
                }
            }
        }
        Err(ApiError::Refused { url: place::shown(&to), reason: "too many redirects" })
    }

    /// Makes and sends one request, signed if it goes to the API's origin.
    fn attempt(&self, to: &Uri, sent: Sent<'_>) -> Result<Response<Body>, ApiError> {
        let url = || place::shown(to);
        let unsent = |source: Cause| ApiError::Unsent { url: url(), source };
        let (method, body) = match sent {
            Sent::Nothing => (Method::GET, &[][..]),
            Sent::Json(body) => (Method::POST, body),
        };
        let mut request = Request::builder().method(&method).uri(to);
        if let Some(signer) = self.signer.as_ref().filter(|_| place::is_same_origin(&self.base, to)) {
            let signed = Signed { method: method.as_str(), path: to.path(), body };
            for (name, value) in signer.sign(signed).map_err(|error| unsent(error.into()))? {
                request = request.header(name, value);
            }
        }
        let outcome = match sent {
            Sent::Nothing => request.body(()).map(|request| self.agent.run(request)),
            Sent::Json(body) => {
                let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                request.body(body).map(|request| self.agent.run(request))
            }
        };
        outcome.map_err(|error| unsent(error.into()))?.map_err(|error| self.failure(url(), error, dropped))
    }

    /// What an error of the client means; `otherwise` is for those that are the system's.
    fn failure(&self, url: String, error: Error, otherwise: fn(String, Cause) -> ApiError) -> ApiError {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the client's, which is said to grow")]
        match error {
            Error::Other(source) => match source.downcast::<Ended>() {
                Ok(ended) => self.ended(url, *ended),
                Err(source) => otherwise(url, source),
            },
            Error::Protocol(source) => ApiError::Garbage { url, reason: escaped(&source.to_string()) },
            Error::LargeResponseHeader(..) => ApiError::Garbage { url, reason: "its head is too long".to_owned() },
            Error::HostNotFound | Error::Rustls(_) | Error::Tls(_) => ApiError::Connect { url, source: error.into() },
            Error::Io(source) => otherwise(url, source.into()),
            error => otherwise(url, error.into()),
        }
    }

    fn ended(&self, url: String, ended: Ended) -> ApiError {
        let HttpLimits { idle, window, window_bytes_min, .. } = self.limits;
        match ended {
            Ended::Stopped => ApiError::Stopped,
            Ended::Stalled => ApiError::Stalled { url, limit: idle },
            Ended::TooSlow => ApiError::TooSlow { url, bytes_min: window_bytes_min, window },
            Ended::Unreachable(source) => ApiError::Connect { url, source: source.into() },
        }
    }

    /// Copies the body of `answer` to `to`; returns the number of bytes.
    fn copy(&self, answer: Answer, bytes_max: u64, to: &mut dyn Write) -> Result<u64, ApiError> {
        let Answer { mut response, url } = answer;
        let too_large = |url| ApiError::TooLarge { url, bytes_max };
        if said_length(&response).is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large(url));
        }
        let mut body = response.body_mut().as_reader();
        let mut block = vec![0; BLOCK_BYTES];
        let mut bytes = 0;
        loop {
            let count = match body.read(&mut block) {
                Ok(0) => return Ok(bytes),
                Ok(count) => count,
                Err(error) => return Err(self.failure(url, error.into(), truncated)),
            };
            bytes += count as u64;
            if bytes > bytes_max {
                return Err(too_large(url));
            }
            if let Err(source) = to.write_all(&block[..count]) {
                return Err(ApiError::Disk { url, source });
            }
        }
    }

    /// Returns the body of a good answer, at most `bytes_max`.
    fn text(&self, answer: Answer, bytes_max: u64) -> Result<Vec<u8>, ApiError> {
        let answer = self.good(answer)?;
        let mut text = Vec::new();
        self.copy(answer, bytes_max, &mut text)?;
        Ok(text)
    }

    /// Returns an answer whose status is one of success, or what the server refused.
    fn good(&self, answer: Answer) -> Result<Answer, ApiError> {
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        let code = answer.response.status().as_u16();
        let after = answer.response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|after| retry_after(after, Timestamp::now()));
        Err(ApiError::Status { url: answer.url.clone(), code, retry_after, text: refusal(answer) })
    }
}

impl JobApi for HttpApi {
    fn request(&self, activity: &Activity) -> Result<Polled, ApiError> {
        let answer = self.post_activity("/api/v1/worker/request", activity)?;
        match answer.response.status() {
            StatusCode::NO_CONTENT => return Ok(Polled::Nothing),
            StatusCode::CONFLICT => return Err(ApiError::IdInUse { text: refusal(answer) }),
            _ => {}
        }
        let url = answer.url.clone();
        let text = self.text(answer, JOB_BYTES_MAX)?;
        match parse_job(&text) {
            Ok(job) => Ok(Polled::Job(Box::new(job))),
            Err(reason) => Err(ApiError::Garbage { url, reason }),
        }
    }

    fn heartbeat(&self, activity: &Activity) -> Result<(), ApiError> {
        let answer = self.post_activity("/api/v1/worker/heartbeat", activity)?;
        self.text(answer, ANSWER_BYTES_MAX).map(drop)
    }

    /// The answer must say `received`, or a proxy's page, an answer that was cut, the empty one of a balancer would cost a result. Only
    /// where nothing is signed, and a small server may be at the other end, one that is told to be empty says so, too.
    fn report(&self, body: &[u8]) -> Result<(), ApiError> {
        let answer = self.post("/api/v1/worker/results", body)?;
        let url = answer.url.clone();
        let may_be_empty = self.signer.is_none() && is_told_empty(&answer.response);
        let text = self.text(answer, ANSWER_BYTES_MAX)?;
        let said = serde_json::from_slice::<Value>(&text).ok();
        if said.is_some_and(|said| said["received"] == true) || may_be_empty && text.is_empty() {
            return Ok(());
        }
        Err(ApiError::Garbage { url, reason: "it does not say that the result was received".to_owned() })
    }

    fn download(&self, url: &str, to: &mut File, bytes_max: u64) -> Result<u64, ApiError> {
        let answer = self.good(self.call(artifact(url)?, Sent::Nothing)?)?;
        if answer.response.status() != StatusCode::OK {
            let reason = format!("the status {} is not 200", answer.response.status().as_u16());
            return Err(ApiError::Garbage { url: answer.url, reason });
        }
        if !tells_its_end(&answer.response) {
            let reason =
                "it tells neither its length nor comes in chunks, so nobody sees whether all of it came".to_owned();
            return Err(ApiError::Garbage { url: answer.url, reason });
        }
        if let Some(coding) = coding(&answer.response) {
            let reason = format!("it is encoded as `{coding}`, and was asked for as it is");
            return Err(ApiError::Garbage { url: answer.url, reason });
        }
        to.set_len(0)
            .and_then(|()| to.rewind())
            .map_err(|source| ApiError::Disk { url: answer.url.clone(), source })?;
        self.copy(answer, bytes_max, to)
    }
}

/// Reads a job as a server sends it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_job(text: &[u8]) -> Result<Job, String> {
    if text.trim_ascii_start().starts_with(b"<") {
        return Err("it is an HTML page and no job".to_owned());
    }
    let job: Job =
        serde_json::from_slice(text).map_err(|error| format!("it is no job: {}", escaped(&error.to_string())))?;
    for (key, id) in [("submissionID", &job.submission_id), ("testSetupID", &job.test_setup_id)] {
        if id.len() > ID_BYTES_MAX {
            return Err(format!("it is no job: its `{key}` has more than {ID_BYTES_MAX} bytes"));
        }
    }
    Ok(job)
}

/// Returns the address of a file of a job.
fn artifact(url: &str) -> Result<Uri, ApiError> {
    place::parse(url).map_err(|reason| ApiError::Refused { url: shown_text(url), reason })
}

/// Returns the address of a file of a job as people and logs are told of it, or what they are told in place of it.
pub(super) fn artifact_shown(url: &str) -> Result<String, ApiError> {
    artifact(url).map(|place| place::shown(&place))
}

/// The client without what we do ourselves: limits of time, redirects, proxies of the environment, errors for statuses.
fn client_config() -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("chickadee-runner/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .max_idle_age(UNUSED_MAX)
        .build()
}

fn signer(secret: &str, worker_id: &str) -> Result<Signer, HttpConfigError> {
    if HeaderValue::from_str(worker_id).is_err() {
        return Err(HttpConfigError::WorkerId { worker_id: worker_id.to_owned() });
    }
    Signer::new(secret, worker_id).map_err(HttpConfigError::Random)
}

/// Returns the certificates in the PEM file `path`, at least one.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, HttpConfigError> {
    let failed = |source: Cause| HttpConfigError::CaFile { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(|error| failed(error.into()))?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| failed(error.into()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(HttpConfigError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// Returns where `response` redirects to, if it does. A 303 asks for a GET: no answer to what we post.
fn redirect<'a>(response: &'a Response<Body>, sent: Sent<'_>) -> Option<Result<&'a str, &'static str>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    if matches!(sent, Sent::Json(_)) && response.status() == StatusCode::SEE_OTHER {
        return Some(Err("a redirect that drops what was posted is not followed"));
    }
    let location = response.headers().get(LOCATION)?;
    Some(location.to_str().map_err(|_| "a redirect leads nowhere"))
}

/// Returns the length that a server has said of its answer.
fn said_length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Tells whether a server has said that its answer, a good one, has no content. One without a length may have been cut.
fn is_told_empty(response: &Response<Body>) -> bool {
    match response.status() {
        StatusCode::NO_CONTENT => true,
        StatusCode::OK => said_length(response) == Some(0),
        _ => false,
    }
}

/// Tells whether an answer that is cut can be told from a whole one; else the end of the connection is its end (RFC 9112, 6.3).
fn tells_its_end(response: &Response<Body>) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| response.headers().contains_key(name))
}

/// Returns what an answer is encoded as, if it is: what comes is taken as it is (RFC 9110, 8.4).
fn coding(response: &Response<Body>) -> Option<String> {
    let said = response.headers().get_all(CONTENT_ENCODING).iter();
    let mut codings = said.map(|value| escaped(String::from_utf8_lossy(value.as_bytes()).trim()));
    codings.find(|coding| !coding.eq_ignore_ascii_case("identity"))
}

/// Returns the beginning of the text of a refusal, for people; what cannot be read of it is left out.
fn refusal(mut answer: Answer) -> String {
    let mut text = Vec::new();
    let body = answer.response.body_mut().as_reader();
    // The status is what counts: a text that ends early is no other failure.
    body.take(REFUSAL_BYTES_MAX).read_to_end(&mut text).unwrap_or_default();
    escaped(&String::from_utf8_lossy(&text))
}

/// Returns the beginning of `text` with its control characters escaped.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(REFUSAL_CHARS_MAX) {
        if letter.is_control() { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    shown
}

fn json(activity: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(activity).map_err(|error| ApiError::Unsent { url: String::new(), source: error.into() })
}

fn dropped(url: String, source: Cause) -> ApiError {
    ApiError::Dropped { url, source }
}

fn truncated(url: String, source: Cause) -> ApiError {
    ApiError::Truncated { url, source }
}
